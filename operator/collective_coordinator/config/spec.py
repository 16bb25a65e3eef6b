"""What one coordinator does, as frozen objects: defaults stand here once, and bounds in `parse`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from collective_coordinator.stop import Stop

FORMATS = ("safetensors", "onnx")
TRACKERS = ("mlflow", "tensorBoard")
STRATEGIES = ("Vote", "FedAvg", "FedProx", "FedOpt", "Cyclic")
AGGREGATIONS = ("Mean", "Median", "TrimmedMean")
OPTIMIZERS = ("AvgM", "Adagrad", "Adam", "Yogi")


@dataclass(frozen=True, kw_only=True)
class Component:
    """A model or a data loader: its registered name and the parameters that differ from its defaults."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LearnerSpec:
    """One learner: what it is called, where it listens, and which data are its own (None: the loader's business)."""

    name: str
    address: str
    location: str | None = None


@dataclass(frozen=True, kw_only=True)
class StrategySpec:
    """How a round is decided; what the type does not use stands at its default.

    Shares that are counted exactly are kept as written (``"0.1"``).

    Parameters
    ----------
    type
        One of `STRATEGIES`.
    threshold
        Vote's.
    fraction
        Of the live learners that train in a round of an averaging strategy.
    mu
        FedProx's.
    optimizer
        FedOpt's; None for the others.
    aggregation, trim
        How averaging strategies make one number of several; the share that TrimmedMean drops on each side.
    gate
        The threshold of the vote on what would be accepted; None: there is none.
    """

    type: str = "Vote"
    threshold: str = "0.5"
    fraction: str = "1"
    mu: float = 0.0
    optimizer: OptimizerSpec | None = None
    aggregation: str = "Mean"
    trim: float = 0.2
    gate: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """FedOpt's server optimizer; see `aggregation.server.ServerOptimizer`."""

    method: str = "Adam"
    learning_rate: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Bounds: the quorum, the seconds that one train or test call may take, and the seconds to wait for the quorum."""

    min_learners: int
    round_timeout_s: float = 600.0
    pre_running_deadline_s: float = 900.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """What one coordinator does."""

    namespace: str
    name: str
    uid: str
    model: Component
    data_loader: Component
    seed: int | None
    strategy: StrategySpec
    learners: tuple[LearnerSpec, ...]
    policy: Policy
    stop: Stop
    formats: tuple[str, ...] = ("safetensors",)
    """Of the model at the end, of `FORMATS`."""
    location: str | None = None
    """The URL that the model and the history are brought to at the end; None: they stay on the volume."""
    trackers: Mapping[str, str] = field(default_factory=dict)
    """Who is told of every round, of `TRACKERS`, and where that is."""
    retry: str = ""
    """Which failure this is another try after; empty for the first. A verdict is good for its own try alone."""

    @property
    def rounds(self) -> int:
        """How many rounds are decided at most."""
        return self.stop.rounds

    def identity(self) -> str:
        """Digest of what makes a checkpoint another task's: model, data and seed."""
        return _digest([_component(self.model), _component(self.data_loader), self.seed])

    def fingerprint(self) -> str:
        """Digest of all that a verdict depends on: everything but addresses and uid, which change between starts."""
        policy = self.policy
        return _digest(
            [
                self.identity(),
                asdict(self.strategy),
                asdict(self.stop),
                [[learner.name, learner.location] for learner in self.learners],
                [policy.min_learners, policy.round_timeout_s, policy.pre_running_deadline_s],
                self.formats,
                *([{"location": self.location}] if self.location else []),
                *([self.retry] if self.retry else []),
            ]
        )


def _component(component: Component) -> list[Any]:
    return [component.name, dict(component.parameters)]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
