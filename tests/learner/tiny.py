"""A learner of two numbers, and ways for it to misbehave: what the server's tests serve.

Imported by `--import` in the servers' own processes, so it stands on its own and needs numpy alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from collective_learner import (
    ColearnModel,
    DiffPrivBudget,
    FactoryRegistry,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    TrainingSummary,
    Weights,
)


def wait_for(fault: str | None) -> None:
    """Wait, bounded, for the file of a fault ``until:FILE``."""
    if fault and fault.startswith("until:"):
        for _ in range(30_000):
            if Path(fault.removeprefix("until:")).exists():
                return
            time.sleep(0.01)


class TinyLearner(MachineLearningInterface):
    """Moves towards its target; votes for whatever is nearer to it."""

    def __init__(self, target: float, *, as_list: bool, size: int, faults: dict[str, str], mark: str) -> None:
        self.target = target
        self.as_list = as_list
        self.faults = faults
        self.mark = mark
        self.w = np.zeros(size, dtype=np.float32)
        self.n = np.zeros((), dtype=np.int64)
        self.score = self.distance(self.w)

    def distance(self, w) -> float:
        return float(np.abs(np.asarray(w[:1000], dtype=np.float64) - self.target).mean())

    def out(self, w, n, summary=None) -> Weights:
        return Weights([w, n] if self.as_list else {"w": w, "n": n}, summary)

    def into(self, weights: Weights):
        return weights.weights if self.as_list else (weights.weights["w"], weights.weights["n"])

    def misbehave(self, where: str) -> None:
        fault = self.faults.get(where)
        if self.mark:
            Path(self.mark, f"{where}-{time.monotonic_ns()}").touch()
        if fault == "raise":
            raise RuntimeError(f"boom in {where}")
        if fault == "exit":
            sys.exit(3)
        if fault == "stop_iteration":
            raise StopIteration
        if fault == "hang":
            time.sleep(3600)
        if fault == "kill":
            os._exit(9)
        wait_for(fault)

    def mli_propose_weights(self) -> Weights:
        self.misbehave("propose")
        w = self.w + (self.target - self.w) / 2
        if self.faults.get("propose") == "nan":
            w[0] = np.nan
        if self.faults.get("propose") == "nothing":
            return None
        summary = TrainingSummary(
            dp_budget=DiffPrivBudget(target_epsilon=4, target_delta=0.5, consumed_epsilon=1, consumed_delta=0.25),
            examples=17,
            metrics={"loss": 0.125},
        )
        return self.out(w.astype(np.float32), self.n + 1, summary)

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        self.misbehave("test")
        score = self.distance(self.into(weights)[0])
        return ProposedWeights(weights=weights, vote_score=score, test_score=score / 2, vote=score < self.score)

    def mli_accept_weights(self, weights: Weights) -> None:
        self.misbehave("accept")
        w, n = self.into(weights)
        self.w, self.n, self.score = np.array(w), np.array(n), self.distance(w)

    def mli_get_current_weights(self) -> Weights:
        return self.out(self.w, self.n)

    def mli_get_current_model(self) -> ColearnModel:
        return ColearnModel(ModelFormat.ONNX, "tiny.onnx", bytes(self.w.data), "there is no other")


@FactoryRegistry.register_dataloader("TINY_DATA")
def load(location: str, scale: float = 1.0, faults: str = "{}") -> float:
    if json.loads(faults).get("load") == "raise":
        raise FileNotFoundError(f"{location}: nothing there")
    wait_for(json.loads(faults).get("load"))
    return float(location) * scale


@FactoryRegistry.register_model_architecture("TINY", ["TINY_DATA"])
def build(
    data_loaders: float, as_list: bool = False, size: int = 2, faults: str = "{}", random: bool = False, mark: str = ""
) -> TinyLearner:
    learner = TinyLearner(data_loaders, as_list=as_list, size=size, faults=json.loads(faults), mark=mark)
    if random:
        learner.w = np.random.rand(size).astype(np.float32)
    return learner
