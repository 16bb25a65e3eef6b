"""Vote, the default: one learner proposes, the others say whether it is better on their own private data.

The rule is Fetch.ai colearn's: the proposer goes round, its own vote does not count, and a proposal passes when
approvals >= (n - 1) x threshold over the n learners that took part. So one learner alone, or a threshold of 0, passes
everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from fractions import Fraction

from collective_coordinator.strategies.base import Ballot, Decision


class Vote:
    """Proposals are taken or left as they are; the weights stay opaque bytes.

    Parameters
    ----------
    threshold
        The share of the voters that must approve, 0 to 1, as decimal text: counted exactly, since 100 voters x 0.07
        is 7.000000000000001 in binary floating point and would ask for an eighth.
    """

    def __init__(self, *, threshold: str) -> None:
        self._threshold = Fraction(threshold)

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Give the one proposer: ``(round - 1) mod n`` over the live learners."""
        return (live[(round_number - 1) % len(live)],)

    def merge(self, proposals: Sequence[AsyncIterator[bytes]]) -> AsyncIterator[bytes]:
        """Pass the one proposal through."""
        (proposal,) = proposals
        return proposal

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot]) -> Decision:
        """Count the votes of everyone but the proposer."""
        votes = {name: ballot.vote for name, ballot in ballots.items() if name not in trainers}
        return Decision(accepted=sum(votes.values()) >= len(votes) * self._threshold, votes=votes)
