"""The coordinator's configuration: JSON that the operator writes, read strictly.

A typo must not become a default that trains the wrong thing for a day, so a missing or wrong value refuses with its
path. Unknown keys are only logged: a newer operator may write more than this coordinator knows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from collective_coordinator.stop import Stop

LOG = logging.getLogger(__name__)

VERSION = 1
FORMATS = ("safetensors", "onnx")
TRACKERS = ("mlflow", "tensorBoard")
STRATEGIES = ("Vote", "FedAvg", "FedProx", "FedOpt", "Cyclic")
AGGREGATIONS = ("Mean", "Median", "TrimmedMean")
OPTIMIZERS = ("AvgM", "Adagrad", "Adam", "Yogi")
MAX_SEED = (1 << 32) - 1


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the path, the value and what is allowed."""


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


def parse_config(text: str) -> Config:
    """Read a configuration.

    Raises
    ------
    ConfigError
        At the first value that is missing or wrong.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the configuration is no JSON: {error}") from None
    root = _Reader(document, "")
    version = root.integer("version", low=1, high=1 << 31)
    if version != VERSION:
        raise ConfigError(f"version: {version} is not known here; this coordinator reads version {VERSION}")
    task = root.child("task")
    learners = _learners(root)
    seed = root.integer("seed", low=0, high=MAX_SEED, default=None)
    rounds = root.required_integer("rounds", low=1, high=100_000)
    result = root.child("result", optional=True)
    config = Config(
        namespace=task.string("namespace", default="default"),
        name=task.string("name"),
        uid=task.string("uid", default=""),
        retry=task.string("retry", default=""),
        model=_read_component(root.child("model")),
        data_loader=_read_component(root.child("dataLoader")),
        seed=seed,
        strategy=_strategy(root.child("strategy", optional=True)),
        learners=learners,
        policy=_policy(root.child("policy", optional=True), count=len(learners)),
        stop=_stop(root.child("stop", optional=True), rounds=rounds),
        formats=_formats(result),
        location=result.url("location"),
        trackers={name: where for name in TRACKERS if (where := result.text(name)) is not None},
    )
    result.finish()
    task.finish()
    root.finish()
    return config


def _learners(root: _Reader) -> tuple[LearnerSpec, ...]:
    entries = root.take("learners")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"learners: {_shown(entries)} is not a list of at least one learner")
    learners = []
    for index, entry in enumerate(entries):
        reader = _Reader(entry, f"learners[{index}]")
        learners.append(
            LearnerSpec(
                name=reader.string("name"),
                address=reader.string("address"),
                location=reader.string("location") if reader.has("location") else None,
            )
        )
        reader.finish()
    for what, values in (("name", [x.name for x in learners]), ("address", [x.address for x in learners])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigError(f"learners: the {what} {twice[0]!r} stands more than once")
    return tuple(learners)


def _read_component(reader: _Reader) -> Component:
    parameters = reader.take("parameters", default={})
    if not isinstance(parameters, dict):
        raise ConfigError(f"{reader.path}.parameters: {_shown(parameters)} is not an object")
    component = Component(name=reader.string("name"), parameters=parameters)
    reader.finish()
    return component


def _strategy(reader: _Reader) -> StrategySpec:
    kind = reader.choice("type", STRATEGIES, default="Vote")
    member = reader.child(kind[0].lower() + kind[1:], optional=True)
    settings: dict[str, Any] = {}
    if kind == "Vote":
        settings["threshold"] = repr(member.number("threshold", low=0.0, high=1.0, default=0.5))
    else:
        settings["gate"] = _gate(reader)
    if kind in ("FedAvg", "FedProx", "FedOpt"):
        settings["fraction"] = repr(member.number("fraction", low=1e-300, high=1.0, default=1.0))
        settings["aggregation"] = reader.choice("aggregation", AGGREGATIONS, default="Mean")
        trimmed = reader.child("trimmedMean", optional=True)
        settings["trim"] = trimmed.number("share", low=0.0, high=0.49, default=0.2)
        trimmed.finish()
    if kind == "FedProx":
        settings["mu"] = member.number("mu", low=0.0, high=1e9, default=0.01)
    if kind == "FedOpt":
        settings["optimizer"] = _optimizer(member)
    member.finish()
    reader.finish()
    return StrategySpec(type=kind, **settings)


def _gate(reader: _Reader) -> str | None:
    if not reader.has("gate"):
        return None
    gate = reader.child("gate")
    gate.choice("type", ("Vote",), default="Vote")
    threshold = gate.number("threshold", low=0.0, high=1.0, default=0.5)
    gate.finish()
    return repr(threshold)


def _optimizer(reader: _Reader) -> OptimizerSpec:
    method = reader.choice("method", OPTIMIZERS, default="Adam")
    # The adaptive methods take steps of about their rate. Momentum moves the whole way to the average and on, in the
    # end 1 / (1 - beta1) times as far: ten times is too far where sites differ and rounds are few (`make quality`).
    rate, momentum = (1.0, 0.5) if method == "AvgM" else (0.03, 0.9)
    return OptimizerSpec(
        method=method,
        learning_rate=reader.number("learningRate", low=0.0, high=1e6, default=rate),
        beta1=reader.number("beta1", low=0.0, high=0.999999, default=momentum),
        beta2=reader.number("beta2", low=0.0, high=0.999999, default=0.99),
        tau=reader.number("tau", low=1e-300, high=1e6, default=1e-3),
    )


def _stop(reader: _Reader, *, rounds: int) -> Stop:
    stop = Stop(
        rounds=rounds,
        test_score=reader.number("testScore", low=-1e9, high=1e9) if reader.has("testScore") else None,
        patience=reader.integer("patience", low=1, high=100_000, default=None),
        min_delta=reader.number("minDelta", low=0.0, high=1e9, default=0.0),
    )
    reader.finish()
    return stop


def _formats(reader: _Reader) -> tuple[str, ...]:
    found = reader.take("formats", default=["safetensors"])
    if not isinstance(found, list) or not found or any(name not in FORMATS or found.count(name) > 1 for name in found):
        allowed = f"a list of at least one of {', '.join(FORMATS)}, none of them twice"
        raise ConfigError(f"{reader.path}.formats: {_shown(found)} is not {allowed}")
    return tuple(found)


def _policy(reader: _Reader, *, count: int) -> Policy:
    policy = Policy(
        min_learners=reader.required_integer("minLearners", low=1, high=count, default=count),
        round_timeout_s=reader.number("roundTimeoutSeconds", low=0.001, high=1e9, default=600.0),
        pre_running_deadline_s=reader.number("preRunningDeadlineSeconds", low=0.001, high=1e9, default=900.0),
    )
    reader.finish()
    return policy


_REQUIRED: Any = object()


class _Reader:
    """Reads one JSON object key by key, and knows which keys nobody asked for."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{path or 'the configuration'}: {_shown(value)} is not an object")
        self.path = path
        self._left = dict(value)

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return self._left.get(key) is not None

    def take(self, key: str, *, default: Any = _REQUIRED) -> Any:
        value = self._left.pop(key, None)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ConfigError(f"{self._at(key)}: is missing")
        return default

    def child(self, key: str, *, optional: bool = False) -> _Reader:
        return _Reader(self.take(key, default={} if optional else _REQUIRED), self._at(key))

    def string(self, key: str, *, default: Any = _REQUIRED) -> str:
        value = self.take(key, default=default)
        if not isinstance(value, str) or (not value and value != default):
            raise ConfigError(f"{self._at(key)}: {_shown(value)} is not a text of at least one character")
        return value

    def text(self, key: str) -> str | None:
        return self.string(key) if self.has(key) else None

    def url(self, key: str) -> str | None:
        value = self.text(key)
        if value is not None and "://" not in value:
            raise ConfigError(f"{self._at(key)}: {value!r} is not a URL such as s3://bucket/folder")
        return value

    def choice(self, key: str, allowed: Sequence[str], *, default: str) -> str:
        value = self.string(key, default=default)
        if value not in allowed:
            raise ConfigError(f"{self._at(key)}: {value!r} is not one of {', '.join(allowed)}")
        return value

    def integer(self, key: str, *, low: int, high: int, default: Any = _REQUIRED) -> int | None:
        value = self.take(key, default=default)
        if value is default and default is not _REQUIRED:
            return default  # type: ignore[no-any-return]
        # JSON has one kind of number, and a writer may have turned 20 into 20.0 on the way.
        whole = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
        if not whole or not low <= value <= high:
            raise ConfigError(f"{self._at(key)}: {_shown(value)} is not a whole number from {low} to {high}")
        return int(value)

    def required_integer(self, key: str, *, low: int, high: int, default: Any = _REQUIRED) -> int:
        value = self.integer(key, low=low, high=high, default=default)
        assert value is not None  # noqa: S101 - the default, where there is one, is a number
        return value

    def number(self, key: str, *, low: float, high: float, default: Any = _REQUIRED) -> float:
        value = self.take(key, default=default)
        real = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not real or not low <= value <= high:
            raise ConfigError(f"{self._at(key)}: {_shown(value)} is not a number from {low:g} to {high:g}")
        return float(value)

    def finish(self) -> None:
        for key in self._left:
            LOG.warning("%s: not known to this coordinator, ignored", self._at(key))


def _component(component: Component) -> list[Any]:
    return [component.name, dict(component.parameters)]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _shown(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."
