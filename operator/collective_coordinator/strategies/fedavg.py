"""FedAvg: some or all learners train at the same time, and the average of their models is everyone's next one.

Weighted by the number of examples that each has trained on. Where a trainer does not say, all count the same, since a
guess would let one learner's silence decide another's weight. Source: McMahan et al., "Communication-Efficient Learning
of Deep Networks from Decentralized Data", AISTATS 2017. The median and the trimmed mean instead of the average: Yin et
al., ICML 2018.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from collective_coordinator.aggregation.backtrack import share_of_way, shortened
from collective_coordinator.aggregation.layout import Layout
from collective_coordinator.aggregation.reduce import Aggregation, NotFiniteError, fold, mean
from collective_coordinator.aggregation.stream import Fold, Inflow, OffenceError, folded, read_layout, require_same
from collective_coordinator.cancelling import cancelled
from collective_coordinator.errors import BudgetSpentError, LearnerError, TooFewTrainersError
from collective_coordinator.strategies.base import Ballot, Decision, Inbound, Training
from collective_coordinator.strategies.gate import Gate, decide
from collective_coordinator.strategies.held import HeldWeights


class FedAvg:
    """Averages what its trainers made.

    Parameters
    ----------
    fraction
        The share of the live learners that train in a round, above 0 to 1, as decimal text; at least one learner does.
    seed
        Of the choice, which depends on nothing but it, the round and who is live.
    aggregation
        How several learners' numbers become one.
    gate
        Asks the learners before the result is accepted; None asks nobody. After a rejection the next proposal goes less
        far, see `backtrack`.
    training
        What the trainers are told.
    """

    alone = False
    keeps_state = False

    def __init__(
        self,
        *,
        fraction: str = "1",
        seed: int = 0,
        aggregation: Aggregation = mean,
        gate: Gate | None = None,
        training: Training | None = None,
    ) -> None:
        self.training = training or Training()
        self._fraction = Fraction(fraction)
        self._seed = seed
        self._aggregation = aggregation
        self._gate = gate

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Draw this round's trainers, in the order of the configuration."""
        wanted = max(1, math.ceil(self._fraction * len(live)))
        if wanted >= len(live):
            return tuple(live)
        drawn = random.Random(f"{self._seed}:{round_number}").sample(range(len(live)), wanted)  # noqa: S311 - no secret
        return tuple(live[index] for index in sorted(drawn))

    async def merge(self, inbound: Inbound) -> AsyncGenerator[bytes, None]:
        """Fold the trainers' streams in step; whoever has not begun in time, or differs, is left out."""
        inflows, layout = await _begun(inbound)
        examples = [_examples(inbound, name) for name in inflows]
        weights = np.array(examples if all(examples) else [1] * len(inflows), dtype=np.float64)
        names = list(inflows)
        # Renumbered: errors name a stream by its place among those that are folded.
        members = list(inflows.values())
        for index, inflow in enumerate(members):
            inflow.index = index
        try:
            async for message in folded(
                members, layout, self._fold(inbound, layout, weights), executor=inbound.arithmetic
            ):
                yield message
        except OffenceError as error:
            raise LearnerError(error.message, learner=names[error.index]) from error
        except NotFiniteError as error:
            raise LearnerError("sent weights that are not finite numbers", learner=names[error.args[0]]) from error

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
        """Accept, or ask the gate."""
        return decide(self._gate, ballots, held)

    def _fold(self, inbound: Inbound, layout: Layout, weights: NDArray[np.float64]) -> Fold:
        step = self._step(inbound, layout, weights)
        share = share_of_way(inbound.rejected)
        if share == 1 or inbound.current is None:
            return step
        return shortened(step, share, HeldWeights(inbound.current, layout).read)

    def _step(self, inbound: Inbound, layout: Layout, weights: NDArray[np.float64]) -> Fold:
        """Give what is done with a piece of every trainer's update."""
        del inbound, layout

        def step(pieces: Sequence[memoryview], dtype: str, begin: int) -> bytes:
            del begin
            return fold(self._aggregation, pieces, dtype, weights)

        return step


def _examples(inbound: Inbound, name: str) -> int:
    summary = inbound.summaries.get(name)
    return summary.examples if summary else 0


async def _begun(inbound: Inbound) -> tuple[dict[str, Inflow], Layout]:
    """Wait until every trainer has begun to send, or is left out.

    Raises
    ------
    TooFewTrainersError
        Too few remain.
    """
    inflows = {
        name: Inflow(index, stream, limit=inbound.limit) for index, (name, stream) in enumerate(inbound.streams.items())
    }
    headers = {name: asyncio.create_task(read_layout(inflow)) for name, inflow in inflows.items()}
    faults: dict[str, LearnerError] = {}
    try:
        await asyncio.wait(headers.values(), timeout=inbound.patience_s)
        for name, header in headers.items():
            if not header.done():
                late = f"has not finished its training within {inbound.patience_s:g} s"
                faults[name] = LearnerError(late, learner=name)
                continue
            error = header.exception()
            if isinstance(error, OffenceError):
                faults[name] = LearnerError(error.message, learner=name)
            elif isinstance(error, LearnerError):
                faults[name] = error
            elif error is not None:
                raise error
    finally:
        await cancelled(headers.values())
    layouts = {name: header.result() for name, header in headers.items() if name not in faults}
    while layouts:
        try:
            layout = require_same(list(layouts.values()))
            break
        except OffenceError as error:
            name = list(layouts)[error.index]
            del layouts[name]
            faults[name] = LearnerError(error.message, learner=name)
    for name, fault in faults.items():
        inbound.leave_out(name, fault)
    # Who may not train any more is not missing: a second attempt would have the others spend again for nothing.
    spent = sum(isinstance(fault, BudgetSpentError) for fault in faults.values())
    if len(layouts) < max(1, inbound.enough - spent):
        raise TooFewTrainersError
    return {name: inflows[name] for name in layouts}, layout
