"""What the operator writes for a spec, the coordinator reads, and means the same by it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from collective_coordinator.config import OptimizerSpec, StrategySpec, parse_config
from collective_coordinator.stop import Stop
from collective_operator.api import parse_task
from collective_operator.desired.config_map import coordinator_config

from .world import PLATFORM, manifest

AVG = {"fraction": "1.0"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({}, StrategySpec()),
        ({"type": "Vote"}, StrategySpec()),
        ({"vote": {"threshold": 0.07}}, StrategySpec(threshold="0.07")),
        ({"vote": {"threshold": 0}}, StrategySpec(threshold="0.0")),
        ({"type": "FedAvg"}, StrategySpec(type="FedAvg", **AVG)),
        ({"type": "FedAvg", "fedAvg": {"fraction": 0.1}}, StrategySpec(type="FedAvg", fraction="0.1")),
        ({"type": "FedAvg", "aggregation": "Median"}, StrategySpec(type="FedAvg", aggregation="Median", **AVG)),
        (
            {"type": "FedAvg", "aggregation": "TrimmedMean"},
            StrategySpec(type="FedAvg", aggregation="TrimmedMean", **AVG),
        ),
        (
            {"type": "FedAvg", "aggregation": "TrimmedMean", "trimmedMean": {"share": 0.49}},
            StrategySpec(type="FedAvg", aggregation="TrimmedMean", trim=0.49, **AVG),
        ),
        ({"type": "FedAvg", "gate": {}}, StrategySpec(type="FedAvg", gate="0.5", **AVG)),
        (
            {"type": "FedProx", "gate": {"type": "Vote", "threshold": 1}},
            StrategySpec(type="FedProx", mu=0.01, gate="1.0", **AVG),
        ),
        (
            {"type": "FedProx", "fedProx": {"mu": 1e9, "fraction": 0.5}},
            StrategySpec(type="FedProx", mu=1e9, fraction="0.5"),
        ),
        ({"type": "FedProx", "fedProx": {"mu": 0}}, StrategySpec(type="FedProx", mu=0.0, **AVG)),
        ({"type": "FedOpt"}, StrategySpec(type="FedOpt", optimizer=OptimizerSpec(), **AVG)),
        (
            {"type": "FedOpt", "fedOpt": {"method": "AvgM"}},
            StrategySpec(type="FedOpt", optimizer=OptimizerSpec(method="AvgM", learning_rate=1.0, beta1=0.5), **AVG),
        ),
        (
            {
                "type": "FedOpt",
                "fedOpt": {
                    "method": "Yogi",
                    "learningRate": 1e6,
                    "beta1": 0,
                    "beta2": 0.999999,
                    "tau": 1e-12,
                    "fraction": 0.25,
                },
            },
            StrategySpec(
                type="FedOpt",
                fraction="0.25",
                optimizer=OptimizerSpec(method="Yogi", learning_rate=1e6, beta1=0.0, beta2=0.999999, tau=1e-12),
            ),
        ),
        (
            {
                "type": "FedOpt",
                "fedOpt": {"method": "Adagrad", "learningRate": 0, "beta1": 0.999999, "beta2": 0, "tau": 1e6},
            },
            StrategySpec(
                type="FedOpt",
                optimizer=OptimizerSpec(method="Adagrad", learning_rate=0.0, beta1=0.999999, beta2=0.0, tau=1e6),
                **AVG,
            ),
        ),
        ({"type": "Cyclic"}, StrategySpec(type="Cyclic")),
        ({"type": "Cyclic", "gate": {"threshold": 0.9}}, StrategySpec(type="Cyclic", gate="0.9")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_strategies(written: dict[str, Any], read: StrategySpec, caplog: pytest.LogCaptureFixture) -> None:
    config = coordinator_config(parse_task(manifest(strategy=written)), PLATFORM)
    with caplog.at_level(logging.WARNING):
        assert _exact(parse_config(json.dumps(config)).strategy) == _exact(read)
    assert caplog.text == "", "the coordinator knows all that is written"


def _exact(strategy: StrategySpec) -> StrategySpec:
    """Shares are kept as text, and "1" and "1.0" are one."""
    gate = None if strategy.gate is None else str(float(strategy.gate))
    return StrategySpec(
        **{
            **{field: getattr(strategy, field) for field in StrategySpec.__dataclass_fields__},
            "threshold": str(float(strategy.threshold)),
            "fraction": str(float(strategy.fraction)),
            "gate": gate,
        }
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, Stop(rounds=20)),
        ({"testScore": 0.98}, Stop(rounds=20, test_score=0.98)),
        ({"testScore": -1e9}, Stop(rounds=20, test_score=-1e9)),
        ({"patience": 100_000}, Stop(rounds=20, patience=100_000)),
        ({"testScore": 1, "patience": 5, "minDelta": 1e9}, Stop(rounds=20, test_score=1.0, patience=5, min_delta=1e9)),
    ],
)
def test_stops(written: dict[str, Any] | None, read: Stop, caplog: pytest.LogCaptureFixture) -> None:
    spec = {} if written is None else {"stop": written}
    config = coordinator_config(parse_task(manifest(**spec)), PLATFORM)
    with caplog.at_level(logging.WARNING):
        assert parse_config(json.dumps(config)).stop == read
    assert caplog.text == ""


def test_all_else() -> None:
    task = manifest(
        model={"name": "M", "parameters": {"a": 1}},
        seed=3,
        learners={"count": 3, "location": "x{index}"},
        policy={"minLearners": 2, "roundTimeoutSeconds": 5, "preRunningDeadlineSeconds": 6},
        result={
            "formats": ["onnx", "safetensors"],
            "location": "abfs://models@lab/digits",
            "secretRef": {"name": "keys"},
            "mlflow": "https://mlflow.example.com/team",
            "tensorBoard": "/logs/digits",
        },
    )
    config = parse_config(json.dumps(coordinator_config(parse_task(task), PLATFORM)))
    assert (config.namespace, config.name, config.uid, config.seed) == ("default", "digits", "task-uid", 3)
    assert (config.model.name, config.model.parameters, config.data_loader.name) == ("M", {"a": 1}, "D")
    assert [(learner.name, learner.location) for learner in config.learners] == [
        (f"learner-{index}", f"x{index}") for index in range(3)
    ]
    assert config.formats == ("onnx", "safetensors")
    assert config.location == "abfs://models@lab/digits"
    assert config.trackers == {"mlflow": "https://mlflow.example.com/team", "tensorBoard": "/logs/digits"}
    policy = config.policy
    assert (policy.min_learners, policy.round_timeout_s, policy.pre_running_deadline_s) == (2, 5, 6)
