"""The gate before an averaged model, and the counting of votes, for whoever asks the learners about a proposal.

Counted exactly: 100 voters x 0.07 is 7.000000000000001 in binary floating point, and would ask for an eighth vote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from collective_coordinator.strategies.base import Ballot, Decision


@dataclass(frozen=True)
class Share:
    """Passes a proposal when approvals >= voters x threshold.

    Parameters
    ----------
    threshold
        The share of the voters that must approve, 0 to 1; as decimal text.
    """

    threshold: str

    def decide(self, ballots: Mapping[str, Ballot]) -> Decision:
        """Count the votes on these ballots."""
        votes = {name: ballot.vote for name, ballot in ballots.items()}
        return Decision(accepted=sum(votes.values()) >= len(votes) * Fraction(self.threshold), votes=votes)


@dataclass(frozen=True)
class Gate:
    """Passes a proposal that enough learners approve of, and that is no worse for the learners' mean vote score.

    Before an averaged model is accepted, it is voted on by every learner on its private data, those that trained
    included: the average is nobody's own. Votes alone would let the model decline round by round, since three sites
    that gain a little outvote two that lose much; so the gains are weighed as well as counted, and the model that is
    held never gets worse on the voters' data, by the mean of their scores. That a round that is rejected does not
    condemn the next one, which starts from the same weights, is `backtrack`'s business.

    Whether a learner's score is a loss or an accuracy is its own business, and its vote tells: it approves of what it
    scores better than the weights it holds. A learner that did not judge the weights held votes, and weighs nothing.

    Parameters
    ----------
    threshold
        The share of the voters that must approve, 0 to 1; as decimal text.
    """

    threshold: str

    def decide(self, ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
        """Count the votes on these ballots, and weigh them against the vote scores of the weights held."""
        counted = Share(self.threshold).decide(ballots)
        gains = [_gain(ballot, held[name]) for name, ballot in ballots.items() if name in held]
        gain = math.fsum(gains) / len(gains) if gains else 0.0
        return Decision(accepted=counted.accepted and gain >= 0, votes=counted.votes, gain=gain)


def decide(gate: Gate | None, ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
    """Let the gate decide; without one everything passes and nobody's vote counts."""
    return Decision(accepted=True, votes={}) if gate is None else gate.decide(ballots, held)


def _gain(ballot: Ballot, held: float) -> float:
    change = abs(ballot.vote_score - held)
    return change if ballot.vote else -change
