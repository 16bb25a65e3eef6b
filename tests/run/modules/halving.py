"""A third party's model and data, as small as can be: learners that halve their distance to a target.

It needs no framework and trains for as long as it is told, or until a file is there, so that tests can catch a run in
the middle.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collective_learner import (
    ColearnModel,
    FactoryRegistry,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    Weights,
)


@dataclass
class Target:
    index: int


@FactoryRegistry.register_dataloader("TARGET")
def target(location: str) -> Target:
    return Target(int(location.partition("/")[0]))


class Halving(MachineLearningInterface):
    def __init__(self, data: Target, seconds: float, gate: str, free: int) -> None:
        self._index = data.index
        self._seconds = seconds
        self._gate = gate
        self._free = free
        self._weights = np.zeros(3, dtype=np.float32)

    def mli_propose_weights(self) -> Weights:
        time.sleep(self._seconds)
        self._free -= 1
        while self._gate and self._free < 0 and not Path(self._gate).exists():
            time.sleep(0.02)
        # The third learner always walks away from the target, and is voted down.
        aim = -1.0 if self._index == 2 else 1.0
        return Weights(weights={"w": (self._weights + aim) / 2})

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        score = self._score(weights.weights["w"])
        return ProposedWeights(
            weights=weights, vote_score=score, test_score=score, vote=score > self._score(self._weights)
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        self._weights = np.array(weights.weights["w"])

    def mli_get_current_weights(self) -> Weights:
        return Weights(weights={"w": self._weights})

    def mli_get_current_model(self) -> ColearnModel:
        return ColearnModel(ModelFormat.SAFETENSORS, "", None)

    @staticmethod
    def _score(weights: np.ndarray) -> float:
        return float(1 - np.abs(1 - weights).mean())


@FactoryRegistry.register_model_architecture("HALVING", ["TARGET"])
def halving(data_loaders: Target, seconds: float = 0.0, gate: str = "", free: int = 0) -> Halving:
    """Make one; beyond so many trainings that are free, each waits until the gate, a file, is there."""
    return Halving(data_loaders, seconds, gate, free)
