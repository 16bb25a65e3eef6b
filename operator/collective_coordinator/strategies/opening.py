"""Round 0: everyone starts from the first learner's weights, measured but not judged.

It goes the way of every other round, so that equal weights are tested, kept and announced like any accepted proposal;
only, nobody trains.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from collective_coordinator.strategies.base import Ballot, Decision, Inbound, Training, pass_through


class Opening:
    """Takes the first live learner's weights as they are."""

    training = Training()
    alone = True
    keeps_state = False

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Give the first."""
        return (live[0],)

    def merge(self, inbound: Inbound) -> AsyncGenerator[bytes, None]:
        """Pass the one stream through."""
        return pass_through(inbound)

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
        """Accept."""
        return Decision(accepted=True, votes={})
