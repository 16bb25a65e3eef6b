"""FedOpt: the averaged update is a gradient to a server optimizer (FedAvgM, FedAdagrad, FedAdam, FedYogi).

The optimizer's state is as large as the model, once or twice. It is streamed beside the weights: read piece by piece
from the file of the last accepted round, written piece by piece to a new one, and kept by the same decision that keeps
the weights. A rejected proposal leaves both. Sources: in `aggregation.server`.

The state's file: ``FEDOPT2`` and a line end, then for every floating-point number of the weights, in the order of the
stream, its slots, float32. So it is the same however the streams are cut.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from numpy.typing import NDArray

from collective_coordinator.aggregation.layout import Layout
from collective_coordinator.aggregation.reduce import FLOATING, Aggregation, decode, encode, fold, mean
from collective_coordinator.aggregation.server import ServerOptimizer
from collective_coordinator.aggregation.stream import Fold
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.spool import StoredWeights, read_exactly
from collective_coordinator.strategies.base import Inbound
from collective_coordinator.strategies.fedavg import FedAvg
from collective_coordinator.strategies.gate import Gate
from collective_coordinator.strategies.held import HeldWeights

_HEAD = b"FEDOPT2\n"


class FedOpt(FedAvg):
    """FedAvg with a server optimizer.

    Parameters
    ----------
    optimizer
        Which one, and its parameters.
    fraction, seed, aggregation, gate
        FedAvg's.
    """

    keeps_state = True

    def __init__(
        self,
        *,
        optimizer: ServerOptimizer,
        fraction: str = "1",
        seed: int = 0,
        aggregation: Aggregation = mean,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(fraction=fraction, seed=seed, aggregation=aggregation, gate=gate)
        self._optimizer = optimizer

    async def merge(self, inbound: Inbound) -> AsyncGenerator[bytes, None]:
        """Average, and move the current weights along the average."""
        if inbound.current is None or inbound.new_state is None:
            raise ValueError("a server optimizer needs the current weights and a place for its state")
        async for message in super().merge(inbound):
            yield message

    def _step(self, inbound: Inbound, layout: Layout, weights: NDArray[np.float64]) -> Fold:
        current, new_state = inbound.current, inbound.new_state
        assert current is not None and new_state is not None  # noqa: S101 - merge has looked
        reader = _Reader(current, inbound.state, layout)
        optimizer = self._optimizer

        def step(pieces: Sequence[memoryview], dtype: str, begin: int) -> bytes:
            average = fold(self._aggregation, pieces, dtype, weights)
            if reader.fresh:
                new_state.append(memoryview(_HEAD))
                reader.fresh = False
            if dtype not in FLOATING:
                return average
            now = decode(reader.weights.read(begin, len(average)), dtype)
            state = reader.state(now.size, optimizer)
            moved, state = optimizer.step(now, decode(average, dtype), state)
            new_state.append(memoryview(np.stack(state, axis=1).astype("<f4", copy=False).tobytes()))
            return encode(moved, dtype)

        return step


class _Reader:
    """Reads the current weights and the state beside them, piece by piece; its calls block."""

    def __init__(self, current: StoredWeights, state: StoredWeights | None, layout: Layout) -> None:
        self.fresh = True
        """Nothing has been written yet."""
        self._state_file: int | None = None
        self.weights = HeldWeights(current, layout)
        self._at = len(_HEAD)
        if state is not None:
            self._state_file = os.open(state.path, os.O_RDONLY | os.O_CLOEXEC)
            if read_exactly(self._state_file, 0, len(_HEAD)) != _HEAD:
                raise TaskFailedError("CheckpointDamaged", f"{state.path.name} is no state of a server optimizer")

    def __del__(self) -> None:
        if self._state_file is not None:
            os.close(self._state_file)

    def state(self, elements: int, optimizer: ServerOptimizer) -> list[NDArray[np.float32]]:
        if self._state_file is None:
            return optimizer.initial(elements)
        size = 4 * elements * optimizer.slots
        raw = np.frombuffer(read_exactly(self._state_file, self._at, size), dtype="<f4")
        self._at += size
        return [*np.ascontiguousarray(raw.reshape(elements, optimizer.slots).T)]
