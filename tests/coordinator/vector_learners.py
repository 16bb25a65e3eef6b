"""Learners for the averaging strategies' tests: the project's own servers, whose models are a few numbers.

Each learner's training moves its weights towards its own target, so that what a round must come to can be computed by
hand; scripts make one slow, wrong or dead. Prints its ports as a JSON list, then serves until its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from collective_learner import (
    ColearnModel,
    DiffPrivBudget,
    ErrorCodes,
    GRPCServer,
    MachineLearningInterface,
    MliFactory,
    ModelFormat,
    ProposedWeights,
    TrainingSummary,
    Weights,
)


class Vector(MachineLearningInterface):
    """Weights: ``w`` float32, ``steps`` int64, ``flag`` bool; and ``rows``, so many more in each proposal.

    A proposal is halfway to the target.
    """

    def __init__(self, script: dict) -> None:
        self.script = script
        self.rounds = 0
        size = script.get("size", 3)
        self.held = {"w": np.zeros(size, np.float32), "steps": np.array(0), "flag": np.array([True, False])}
        self.growing = {}
        if "grows" in script:
            self.held["rows"] = np.zeros((0, 1024), np.float32)
            self.growing = {"rows": 4 * script["grows"]}
        self.best = self._distance(self.held)

    def _distance(self, weights) -> float:
        return float(np.abs(weights["w"].astype(np.float64) - self.script["target"]).mean())

    def mli_set_training_options(self, options) -> None:
        self.mu = options.proximal_mu

    def mli_propose_weights(self) -> Weights:
        self.rounds += 1
        fault = self.script.get("faults", {}).get(str(self.rounds))
        time.sleep(self.script.get("slow", 0))
        if fault == "die":
            os._exit(9)
        if fault == "sleep":
            time.sleep(30)
        step = (self.script["target"] - self.held["w"]) / 2 / (1 + getattr(self, "mu", 0.0))
        new = {**self.held, "w": (self.held["w"] + step).astype(np.float32), "steps": self.held["steps"] + 1}
        if self.growing:
            new["rows"] = np.ones((len(self.held["rows"]) + self.script["grows"], 1024), np.float32)
        if fault == "shape":
            new["w"] = np.zeros(4, np.float32)
        if fault == "nan":
            new["w"] = np.full_like(new["w"], np.nan)
        examples, target = self.script.get("examples", 1), self.script.get("budget")
        if target is None:
            return Weights(new, TrainingSummary(examples=examples), growing=self.growing)
        enough = self.rounds <= target
        budget = DiffPrivBudget(
            target_epsilon=target, target_delta=0.1, consumed_epsilon=min(self.rounds, target), consumed_delta=0.1
        )
        code = ErrorCodes.NONE if enough else ErrorCodes.DP_BUDGET_EXCEEDED
        summary = TrainingSummary(examples=examples, dp_budget=budget, error_code=code)
        return Weights(new if enough else self.held, summary)

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        score = self._distance(weights.weights)
        return ProposedWeights(weights, vote_score=score, test_score=-score, vote=score < self.best)

    def mli_accept_weights(self, weights: Weights) -> None:
        self.held = {name: np.array(value) for name, value in weights.weights.items()}
        self.best = self._distance(self.held)

    def mli_get_current_weights(self) -> Weights:
        return Weights(self.held, growing=self.growing)

    def mli_get_current_model(self) -> ColearnModel:
        script = self.script.get("model", {})
        if script.get("does") == "die":
            os._exit(9)
        if script.get("does") == "hang":
            time.sleep(30)
        if "bytes" in script:
            return ColearnModel(ModelFormat.ONNX, "model.onnx", b"x" * script["bytes"])
        return ColearnModel(ModelFormat.SAFETENSORS, "", None)


class Factory(MliFactory):
    def __init__(self, script: dict) -> None:
        self.script = script

    def get_version(self):
        return "1.0.0"

    def get_models(self):
        return {"PLAIN": {}}

    def get_dataloaders(self):
        return {"PLAIN": {}}

    def get_compatibilities(self):
        return {"PLAIN": {"PLAIN"}}

    def get_mli(self, model_name, model_params, dataloader_name, dataset_params):
        return Vector(self.script)


if __name__ == "__main__":
    servers = [GRPCServer(Factory(script), port=0, host="127.0.0.1") for script in json.loads(sys.argv[1])]
    for server in servers:
        server.start()
    print(json.dumps([server.port for server in servers]), flush=True)
    sys.stdin.read()
