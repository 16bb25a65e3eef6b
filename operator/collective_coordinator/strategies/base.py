"""The seam between the round loop and the algorithms.

The loop does the IO: it asks learners to train, streams what comes of it through to whoever tests it, keeps it, and
announces the decision. A strategy is pure: who trains, how several streams of weights become one while they arrive, and
what the ballots mean. So an averaging strategy joins without a change in the loop: it names more than one trainer and
folds their parts, and its tests are the gate.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What one learner said about a proposal: two finite scores and its vote."""

    vote: bool
    vote_score: float
    test_score: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a proposal.

    Parameters
    ----------
    accepted
        Whether every learner takes it.
    votes
        The votes that counted, by learner.
    """

    accepted: bool
    votes: Mapping[str, bool]


class Strategy(Protocol):
    """One algorithm."""

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Choose who trains in this round.

        Parameters
        ----------
        round_number
            From 1.
        live
            The learners that can take part, in the order of the configuration; at least one.

        Returns
        -------
        tuple of str
            At least one of `live`; the first stands as the proposer in the record of the round.
        """

    def merge(self, proposals: Sequence[AsyncIterator[bytes]]) -> AsyncIterator[bytes]:
        """Make one stream of serialised WeightsParts of the trainers' streams, part by part, while they arrive."""

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot]) -> Decision:
        """Decide on the ballots of all who took part, the trainers among them."""
