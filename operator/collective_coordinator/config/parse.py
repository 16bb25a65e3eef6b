"""The coordinator's configuration: JSON that the operator writes, read strictly.

A typo must not become a default that trains the wrong thing for a day, so a missing or wrong value refuses with its
path. Unknown keys are only logged: a newer operator may write more than this coordinator knows.
"""

from __future__ import annotations

import json
from typing import Any

from collective_coordinator.config.reader import ConfigError, Reader, shown
from collective_coordinator.config.spec import (
    AGGREGATIONS,
    FORMATS,
    OPTIMIZERS,
    STRATEGIES,
    TRACKERS,
    Component,
    Config,
    LearnerSpec,
    OptimizerSpec,
    Policy,
    StrategySpec,
)
from collective_coordinator.stop import Stop

VERSION = 1
MAX_SEED = (1 << 32) - 1


def parse_config(text: str) -> Config:
    """Read a configuration.

    Raises
    ------
    ConfigError
        At the first value that is missing or wrong.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration is no JSON: {error}") from None
    root = Reader(document, "")
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


def _learners(root: Reader) -> tuple[LearnerSpec, ...]:
    entries = root.take("learners")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"learners: {shown(entries)} is not a list of at least one learner")
    learners = []
    for index, entry in enumerate(entries):
        reader = Reader(entry, f"learners[{index}]")
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


def _read_component(reader: Reader) -> Component:
    parameters = reader.take("parameters", default={})
    if not isinstance(parameters, dict):
        raise ConfigError(f"{reader.path}.parameters: {shown(parameters)} is not an object")
    component = Component(name=reader.string("name"), parameters=parameters)
    reader.finish()
    return component


def _strategy(reader: Reader) -> StrategySpec:
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


def _gate(reader: Reader) -> str | None:
    if not reader.has("gate"):
        return None
    gate = reader.child("gate")
    gate.choice("type", ("Vote",), default="Vote")
    threshold = gate.number("threshold", low=0.0, high=1.0, default=0.5)
    gate.finish()
    return repr(threshold)


def _optimizer(reader: Reader) -> OptimizerSpec:
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


def _stop(reader: Reader, *, rounds: int) -> Stop:
    stop = Stop(
        rounds=rounds,
        test_score=reader.number("testScore", low=-1e9, high=1e9) if reader.has("testScore") else None,
        patience=reader.integer("patience", low=1, high=100_000, default=None),
        min_delta=reader.number("minDelta", low=0.0, high=1e9, default=0.0),
    )
    reader.finish()
    return stop


def _formats(reader: Reader) -> tuple[str, ...]:
    found = reader.take("formats", default=["safetensors"])
    if not isinstance(found, list) or not found or any(name not in FORMATS or found.count(name) > 1 for name in found):
        allowed = f"a list of at least one of {', '.join(FORMATS)}, none of them twice"
        raise ConfigError(f"{reader.path}.formats: {shown(found)} is not {allowed}")
    return tuple(found)


def _policy(reader: Reader, *, count: int) -> Policy:
    policy = Policy(
        min_learners=reader.required_integer("minLearners", low=1, high=count, default=count),
        round_timeout_s=reader.number("roundTimeoutSeconds", low=0.001, high=1e9, default=600.0),
        pre_running_deadline_s=reader.number("preRunningDeadlineSeconds", low=0.001, high=1e9, default=900.0),
    )
    reader.finish()
    return policy
