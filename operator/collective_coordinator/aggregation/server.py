"""Server optimizers: the averaged update as a gradient of the global model, applied piece by piece.

Plain averaging moves the global model the whole way to the mean of the learners' models. A server optimizer takes the
difference as a pseudo-gradient and steps along it with momentum or with adaptive rates, which is steadier where sites
differ. Its state (one or two tensors the size of the model) is streamed and checkpointed beside the weights, so that a
restart continues the same trajectory.

Sources: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019 (FedAvgM); Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2 (FedAdagrad, FedAdam, FedYogi;
no bias correction, second moment starting at tau squared).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

Method = Literal["AvgM", "Adagrad", "Adam", "Yogi"]


@dataclass(frozen=True, kw_only=True)
class ServerOptimizer:
    """One of the four methods and its parameters.

    Parameters
    ----------
    method
        Which one.
    learning_rate
        Of the server's step; 1.0 with AvgM and no momentum is plain averaging.
    beta1
        Share of the previous first moment (momentum) that is kept.
    beta2
        Share of the previous second moment that is kept (Adam, Yogi).
    tau
        Added to the root of the second moment; the smaller, the more adaptive.
    """

    method: Method
    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    @property
    def slots(self) -> int:
        """How many tensors of state stand beside every tensor of weights."""
        return 1 if self.method == "AvgM" else 2

    def initial(self, elements: int) -> list[Column]:
        """Make the state of a piece before the first round: float32, shape (elements,) each."""
        zeros = np.zeros(elements, dtype=np.float32)
        if self.method == "AvgM":
            return [zeros]
        return [zeros, np.full(elements, self.tau**2, dtype=np.float32)]

    def step(self, current: Column, average: Column, state: list[Column]) -> tuple[Column, list[Column]]:
        """Move the current weights along the averaged update.

        Parameters
        ----------
        current, average
            The global weights and the learners' average, shape (elements,), floating.
        state
            What `initial` or the last step returned; not changed.

        Returns
        -------
        tuple
            The new weights, in the type of ``current``, and the new state.
        """
        update = (average - current).astype(np.float32)
        if self.method == "AvgM":
            momentum = self.beta1 * state[0] + update
            return _move(current, self.learning_rate * momentum), [momentum]
        first = self.beta1 * state[0] + (1 - self.beta1) * update
        square = update * update
        match self.method:
            case "Adagrad":
                second = state[1] + square
            case "Adam":
                second = self.beta2 * state[1] + (1 - self.beta2) * square
            case "Yogi":
                second = state[1] - (1 - self.beta2) * square * np.sign(state[1] - square)
        return _move(current, self.learning_rate * first / (np.sqrt(second) + self.tau)), [first, second]


def _move(current: Column, step: Column) -> Column:
    return (current + step).astype(current.dtype)
