"""Vote, the default: one learner proposes, the others say whether it is better on their own private data.

The rule is Fetch.ai colearn's: the proposer goes round, its own vote does not count, and a proposal passes when
approvals >= (n - 1) x threshold over the n learners that took part. So one learner alone, or a threshold of 0, passes
everything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from collective_coordinator.strategies.base import Ballot, Decision, Inbound, Training, pass_through
from collective_coordinator.strategies.gate import Share


class Vote:
    """Proposals are taken or left as they are; the weights stay opaque bytes.

    Parameters
    ----------
    threshold
        The share of the voters that must approve, 0 to 1, as decimal text.
    """

    training = Training()
    alone = True
    keeps_state = False

    def __init__(self, *, threshold: str) -> None:
        self._rule = Share(threshold)

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Give the one proposer: ``(round - 1) mod n`` over the live learners."""
        return (live[(round_number - 1) % len(live)],)

    def merge(self, inbound: Inbound) -> AsyncGenerator[bytes, None]:
        """Pass the one proposal through."""
        return pass_through(inbound)

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
        """Count the votes of everyone but the proposer."""
        del held
        return self._rule.decide({name: ballot for name, ballot in ballots.items() if name not in trainers})
