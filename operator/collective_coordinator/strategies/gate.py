"""Counting votes: the rule by which a proposal passes, for whoever asks the learners about one.

Counted exactly: 100 voters x 0.07 is 7.000000000000001 in binary floating point, and would ask for an eighth vote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from collective_coordinator.strategies.base import Ballot, Decision


@dataclass(frozen=True)
class Gate:
    """Passes a proposal when approvals >= voters x threshold.

    Before an averaged model is accepted, it is voted on by every learner on its private data, those that trained
    included: the average is nobody's own. This is what keeps an average that harms most sites out, and what plain
    voting lacks where sites differ, since there nobody's own improvement is everybody's.

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


def decide(gate: Gate | None, ballots: Mapping[str, Ballot]) -> Decision:
    """Let the gate decide; without one everything passes and nobody's vote counts."""
    return Decision(accepted=True, votes={}) if gate is None else gate.decide(ballots)
