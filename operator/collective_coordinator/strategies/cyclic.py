"""Cyclic: one learner trains after the other, and hands the model on.

What the trainer of the round has made becomes everyone's model; nobody is asked, unless there is a gate. Source: Chang
et al., "Distributed deep learning networks among institutions for medical imaging", JAMIA 2018 (cyclical weight
transfer).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from collective_coordinator.strategies.base import Ballot, Decision, Inbound, Training, pass_through
from collective_coordinator.strategies.gate import Gate, decide


class Cyclic:
    """The model goes round; the weights stay opaque bytes.

    Parameters
    ----------
    gate
        Asks the learners before the model is handed on; None asks nobody.
    """

    training = Training()
    alone = True
    keeps_state = False

    def __init__(self, *, gate: Gate | None = None) -> None:
        self._gate = gate

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Give the one whose turn it is: ``(round - 1) mod n`` over the live learners."""
        return (live[(round_number - 1) % len(live)],)

    def merge(self, inbound: Inbound) -> AsyncGenerator[bytes, None]:
        """Pass the one proposal through."""
        return pass_through(inbound)

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
        """Accept, or ask the gate."""
        return decide(self._gate, ballots, held)
