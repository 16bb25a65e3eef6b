"""A learner that trains until it is told to stop, or does not listen: what the tests of stopping serve.

Imported by `--import` in the servers' own processes. Its weights are the options that a training was given.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from collective_learner import (
    ColearnModel,
    FactoryRegistry,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    TrainingOptions,
    TrainingStoppedError,
    Weights,
)


class StoppableLearner(MachineLearningInterface):
    """Obedient, stubborn, or deaf to the first word; while the file `quick` is there it trains in no time."""

    def __init__(self, folder: Path, manner: str) -> None:
        self.folder = folder
        self.manner = manner
        self.told = threading.Event()
        self.options = TrainingOptions()

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        self.options = options

    def mli_stop_training(self) -> None:
        self.told.set()
        if self.manner == "raises":
            raise RuntimeError("stop it yourself")

    def mli_propose_weights(self) -> Weights:
        proposal = Weights({"w": np.array([self.options.round, self.options.proximal_mu])})
        (self.folder / f"training-{time.monotonic_ns()}").touch()
        if self.manner == "deaf at first":
            assert self.told.wait(60)
        self.told.clear()
        if (self.folder / "quick").exists():
            time.sleep(0.05)
            if self.told.is_set():
                raise AssertionError("told to stop by nobody")
            return proposal
        if self.manner == "stubborn":
            time.sleep(3600)
        assert self.told.wait(60)
        raise TrainingStoppedError("the stop was heard")

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        return ProposedWeights(weights=weights, vote_score=0, test_score=0, vote=True)

    def mli_accept_weights(self, weights: Weights) -> None:
        raise NotImplementedError

    def mli_get_current_weights(self) -> Weights:
        return Weights({"w": np.zeros(2)})

    def mli_get_current_model(self) -> ColearnModel:
        return ColearnModel(ModelFormat.ONNX, "", b"")


@FactoryRegistry.register_dataloader("FOLDER")
def folder(location: str) -> Path:
    return Path(location)


@FactoryRegistry.register_model_architecture("STOPPABLE", ["FOLDER"])
def stoppable(data_loaders: Path, manner: str = "obedient") -> StoppableLearner:
    return StoppableLearner(data_loaders, manner)
