"""A learner that learns nothing and forgets nothing: its weights carry their own history, and it writes a journal.

Weights are four tensors. ``chain`` is the hash of the weights that they were trained from, ``counter`` holds how many
acceptances lie behind them and the round that they were proposed in, ``nonce`` makes every proposal another one, and
``values`` move by an amount that the round alone decides. All trainers of a round start from the same weights, so
their average has the same chain, counter and values: a lost acceptance, a doubled one, an average of learners that held
different weights, or a server optimizer with the wrong state shows in the result, whatever the strategy.

Votes and scores are a hash of the proposal and the voter: an answer that belongs to other weights shows too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from collective_learner.factory import FactoryRegistry
from collective_learner.mli import (
    ColearnModel,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    TrainingOptions,
    TrainingSummary,
    Weights,
)

NAME = "CHAOS"
NAMES = ("chain", "counter", "nonce", "values")
Arrays = Mapping[str, np.ndarray]


class Site(str):
    """A location."""


def fingerprint(weights: Arrays) -> str:
    digest = hashlib.sha256()
    for name in NAMES:
        digest.update(np.ascontiguousarray(weights[name]).data)
    return digest.hexdigest()


def moved(values: np.ndarray, number: int) -> np.ndarray:
    """Train: the same for all learners of a round."""
    step = ((number * 2654435761) % 1000) / 1000 - 0.5
    pattern = 1 + np.arange(values.size, dtype=np.float32) % 7
    return (values + np.float32(step) * pattern).astype(np.float32)


def verdict(proposal: str, voter: str) -> tuple[bool, float]:
    """Give a vote, three of four for it, and a score that a 32-bit float holds in seven digits."""
    number = int.from_bytes(hashlib.sha256(f"{proposal} {voter}".encode()).digest()[:4], "big")
    return number % 4 > 0, float(f"{np.float32(number % 9973 / 10007):.7g}")


class TinyLearner(MachineLearningInterface):
    def __init__(self, site: str, size: int, journal: str, train_s: float) -> None:
        self.site = site
        self.train_s = train_s
        self.round = 0
        self.journal = Path(journal) / f"learner-{site}.jsonl"
        self.weights: Arrays = {
            "chain": np.zeros(32, np.uint8),
            "counter": np.zeros(2, np.int64),
            "nonce": _nonce(),
            "values": np.zeros(size, np.float32),
        }
        self.note("setup", self.weights)

    def note(self, event: str, weights: Arrays, **more: Any) -> str:
        """Append a line that a kill leaves whole or out."""
        mark = fingerprint(weights)
        generation, number = map(int, weights["counter"])
        line = json.dumps(
            {
                "event": event,
                "pid": os.getpid(),
                "hash": mark,
                "parent": bytes(weights["chain"]).hex(),
                "generation": generation,
                "round": number,
                "value": float(weights["values"][0]),
                **more,
            }
        )
        descriptor = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)
        return mark

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        self.round = options.round

    def mli_propose_weights(self) -> Weights:
        base = self.weights
        time.sleep(self.train_s)
        proposal = {
            "chain": np.frombuffer(bytes.fromhex(fingerprint(base)), np.uint8),
            "counter": np.array([base["counter"][0] + 1, self.round], np.int64),
            "nonce": _nonce(),
            "values": moved(base["values"], self.round),
        }
        self.note("train", proposal)
        return Weights(weights=proposal, training_summary=TrainingSummary(examples=10))

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        mark = self.note("test", _named(weights), held=fingerprint(self.weights))
        vote, score = verdict(mark, self.site)
        return ProposedWeights(weights=weights, vote_score=score, test_score=score, vote=vote)

    def mli_accept_weights(self, weights: Weights) -> None:
        self.weights = _named(weights)
        self.note("accept", self.weights)

    def mli_get_current_weights(self) -> Weights:
        return Weights(weights=self.weights)

    def mli_get_current_model(self) -> ColearnModel:
        return ColearnModel(ModelFormat.SAFETENSORS, "tiny.safetensors", save(dict(self.weights)))


def _nonce() -> np.ndarray:
    return np.frombuffer(os.urandom(8), np.uint8)


def _named(weights: Weights) -> Arrays:
    assert isinstance(weights.weights, Mapping)
    return weights.weights


@FactoryRegistry.register_dataloader(NAME)
def site(location: str) -> Site:
    return Site(location)


@FactoryRegistry.register_model_architecture(NAME, [NAME])
def tiny(data_loaders: Site, size: int = 500, journal: str = ".", train_s: float = 0.001) -> TinyLearner:
    return TinyLearner(data_loaders, size, journal, train_s)
