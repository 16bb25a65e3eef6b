"""Learner servers for the benchmarks: the project's own, whose work is to wait.

``python -m tests.benchmarks.learners '{"count": 8, "megabytes": 100, "train_s": 0.5, ...}'`` prints its ports as a JSON
list and serves until its standard input ends.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from collective_learner import (
    ColearnModel,
    GRPCServer,
    MachineLearningInterface,
    MliFactory,
    ModelFormat,
    ProposedWeights,
    TrainingSummary,
    Weights,
)
from collective_learner.wire.memory import keep_freed_parts


class Waiting(MachineLearningInterface):
    """Takes its time; accepting what it has just tested needs no second test, as in any good learner."""

    accepts_views = True

    def __init__(self, *, megabytes: float, train_s: float, test_s: float, accept_s: float, marks: str) -> None:
        self.marks = Path(marks) if marks else None
        self.held = {"w": np.zeros(max(1, int(megabytes * 250_000)), np.float32)}
        self.proposed = {"w": np.ones_like(self.held["w"])}
        self.train_s, self.test_s, self.accept_s = train_s, test_s, accept_s
        self.tested: object = None

    def mli_set_training_options(self, options: object) -> None:
        """Take any."""

    def mli_propose_weights(self) -> Weights:
        """Wait, and propose the same as ever."""
        time.sleep(self.train_s)
        self.mark("gave")
        return Weights(self.proposed, TrainingSummary(examples=1))

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Wait, and approve."""
        self.mark("got")
        time.sleep(self.test_s)
        self.tested = weights.weights
        return ProposedWeights(None, vote_score=0.5, test_score=0.5, vote=True)

    def mli_accept_weights(self, weights: Weights) -> None:
        """Test again unless these are the ones tested last."""
        if weights.weights is not self.tested:
            time.sleep(self.accept_s)

    def mli_get_current_weights(self) -> Weights:
        """Give the first weights."""
        return Weights(self.held)

    def mli_get_current_model(self) -> ColearnModel:
        """Give none."""
        return ColearnModel(ModelFormat.SAFETENSORS, "", None)

    def mark(self, what: str) -> None:
        """Write down when weights left the learner's hands or came into them, on the clock that all processes share."""
        if self.marks:
            with self.marks.open("a") as file:
                file.write(json.dumps([what, time.monotonic()]) + "\n")


class Factory(MliFactory):
    """Makes them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def get_version(self) -> str:
        """Give the version."""
        return "1.0.0"

    def get_models(self) -> dict[str, dict[str, object]]:
        """Give the one model."""
        return {"BENCH": {}}

    def get_dataloaders(self) -> dict[str, dict[str, object]]:
        """Give the one loader."""
        return {"BENCH": {}}

    def get_compatibilities(self) -> dict[str, set[str]]:
        """Pair them."""
        return {"BENCH": {"BENCH"}}

    def get_mli(
        self, model_name: str, model_params: str, dataloader_name: str, dataset_params: str
    ) -> MachineLearningInterface:
        """Make one."""
        return Waiting(**self.settings)


def main() -> None:
    """Serve."""
    defaults = {"megabytes": 0.01, "train_s": 0.0, "test_s": 0.0, "accept_s": 0.0, "marks": ""}
    settings = defaults | json.loads(sys.argv[1])
    keep_freed_parts()  # as `collective serve` does
    count = int(settings.pop("count", 1))
    servers = [GRPCServer(Factory(settings), port=0, host="127.0.0.1") for _ in range(count)]
    for server in servers:
        server.start()
    print(json.dumps([server.port for server in servers]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
