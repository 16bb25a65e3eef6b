"""Reading task files: every problem at once, each with its path, the value, and what is allowed."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import yaml

from collective_operator.api import TaskInvalid, fields, parse_task, rules

from .world import manifest


def problems(task: Any) -> list[str]:
    with pytest.raises(TaskInvalid) as refused:
        parse_task(task)
    return [str(problem) for problem in refused.value.problems]


def test_all_problems_at_once() -> None:
    task = yaml.safe_load("""
        apiVersion: v1
        kind: CollectiveTask
        metadata: {name: Digits}
        sepc: {}
        spec:
          model: {nam: X}
          dataLoader: {name: D}
          rounds: "20"
          strategy: {vote: {threshold: 1.5}}
          learners: {count: 0, resources: {requests: {cpu: lots}}}
    """)
    found = problems(task)
    for words in (
        "apiVersion: 'v1' is not allowed: must be collectivelearning.dev/v1alpha1",
        "metadata.name: 'Digits' is not allowed: metadata.name must be an RFC 1035 label",
        "sepc: is no field; there are apiVersion, kind, metadata, spec, status",
        "spec.model.name: is required",
        "spec.model.nam: is no field; there are name, parameters",
        "spec.rounds: '20' is not allowed: must be a valid integer",
        "spec.strategy.vote.threshold: 1.5 is not allowed: must be less than or equal to 1",
        "spec.learners.count: 0 is not allowed: must be greater than or equal to 1",
        "spec.learners.resources.requests.cpu: 'lots' is not allowed: must be a Kubernetes quantity",
    ):
        assert any(problem.startswith(words) for problem in found), words
    assert len(found) == 9


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"dataLoader": {"name": "D", "parameters": {"location": "x"}}}, "spec.dataLoader.parameters.location: 'x'"),
        (
            {"learners": {"count": 2, "gpus": {"count": 1}, "resources": {"limits": {"nvidia.com/gpu": 2}}}},
            "spec.learners.resources.limits.nvidia.com/gpu: 2",
        ),
        (
            {"learners": {"count": 2, "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000M"}}}},
            "spec.learners.resources.requests.memory: '1Gi' is not allowed: must be at most spec.learners.resources",
        ),
        ({"model": {"name": "M", "parameters": {"when": datetime.date(2026, 1, 1)}}}, "spec.model.parameters.when:"),
        ({"model": {"name": "M", "parameters": {"rates": [0.1, float("nan")]}}}, "spec.model.parameters.rates[1]: nan"),
        ({"model": {"name": "M", "parameters": {1: 2}}}, "spec.model.parameters: 1 is not allowed"),
        (
            {"strategy": {"fedAvg": {"fraction": 0.5}}},
            f"spec.strategy.fedAvg: {{'fraction': 0.5}} is not allowed: {rules.STRATEGY_MEMBERS['fedAvg'][1]}",
        ),
        ({"strategy": {"type": "Cyclic", "vote": {}}}, "spec.strategy.vote:"),
        ({"strategy": {"type": "FedAvg", "fedOpt": {}}}, "spec.strategy.fedOpt:"),
        ({"strategy": {"type": "FedOpt", "fedProx": {}}}, "spec.strategy.fedProx:"),
        (
            {"strategy": {"aggregation": "Mean"}},
            f"spec.strategy.aggregation: 'Mean' is not allowed: {rules.AGGREGATION}",
        ),
        ({"strategy": {"type": "FedAvg", "trimmedMean": {}}}, "spec.strategy.trimmedMean:"),
        ({"strategy": {"type": "FedAvg", "aggregation": "Median", "trimmedMean": {}}}, "spec.strategy.trimmedMean:"),
        ({"strategy": {"gate": {}}}, "spec.strategy.gate:"),
        ({"strategy": {"type": "FedAvg", "fedAvg": {"fraction": 0}}}, "spec.strategy.fedAvg.fraction: 0"),
        ({"strategy": {"type": "FedMagic"}}, "spec.strategy.type: 'FedMagic' is not allowed: must be 'Vote', 'FedAvg'"),
        ({"stop": {}}, f"spec.stop: {{}} is not allowed: {rules.STOP}"),
        ({"stop": {"testScore": 1, "minDelta": 0.1}}, f"spec.stop.minDelta: 0.1 is not allowed: {rules.MIN_DELTA}"),
        ({"result": {"formats": []}}, "spec.result.formats: [] is not allowed"),
        (
            {"result": {"formats": ["onnx", "onnx"]}},
            f"spec.result.formats: ['onnx', 'onnx'] is not allowed: {fields.EACH_ONCE}",
        ),
        (
            {"result": {"formats": ["pickle", "onnx"]}},
            "spec.result.formats[0]: 'pickle' is not allowed: must be 'safetensors'",
        ),
        ({"result": {"location": "b/x"}}, f"spec.result.location: 'b/x' is not allowed: {fields.RESULT_URL}"),
        ({"result": {"location": "s3://me:key@b/x"}}, "spec.result.location: 's3://me:...@b/x' is not allowed:"),
        ({"result": {"location": "https://b/x?sig=1"}}, "spec.result.location: 'https://b/x?sig=1' is not allowed:"),
        (
            {"result": {"mlflow": "mlflow:5000"}},
            f"spec.result.mlflow: 'mlflow:5000' is not allowed: {fields.TRACKING_URL}",
        ),
        ({"result": {"mlflow": "https://me:key@m"}}, "spec.result.mlflow: 'https://me:...@m' is not allowed:"),
        ({"result": {"tensorBoard": "a b"}}, f"spec.result.tensorBoard: 'a b' is not allowed: {fields.RESULT_FOLDER}"),
        ({"result": {"tensorBoard": "s3://me:key@b"}}, "spec.result.tensorBoard: 's3://me:...@b' is not allowed:"),
        ({"result": {"secretRef": {}}}, "spec.result.secretRef.name: is required"),
        (
            {"result": {"bucket": "b"}},
            "spec.result.bucket: is no field; there are formats, location, secretRef, mlflow",
        ),
        ({"seed": True}, "spec.seed: True"),
        ({"policy": {"minLearners": 3}}, "spec.policy.minLearners: 3"),
    ],
)
def test_refused(spec: dict[str, Any], words: str) -> None:
    (problem,) = problems(manifest(**spec))
    assert problem.startswith(words)


@pytest.mark.parametrize(
    "task",
    [
        None,
        [],
        "x",
        {},
        {"spec": None},
        manifest() | {"spec": []},
        manifest() | {"metadata": 3},
    ],
)
def test_no_task_at_all(task: Any) -> None:
    assert problems(task)


def test_nested_too_deep() -> None:
    """An API server lets ten thousand levels through, which pydantic would not read, and a path would not end."""
    deep: Any = 1
    for _ in range(90):
        deep = [{"a": deep}]
    (told,) = problems(manifest(model={"name": "M", "parameters": {"a": deep}}))
    assert told.startswith("spec.model.parameters.a[0].a[0].a[0]") and len(told) < 200
    assert told.endswith("...: must have no more than 100 lists and mappings in one another")
    for _ in range(45):
        deep = deep[0]["a"]
    parse_task(manifest(model={"name": "M", "parameters": {"a": deep}}))


def test_too_large() -> None:
    """What is left free in a spec has no bound of its own, and all of it is read at each look."""
    (told,) = problems(manifest(model={"name": "M", "parameters": {"a": [1] * 140_000}}))
    assert told == "spec: 280,104 bytes of JSON are not allowed: must be at most 262,144"
    parse_task(manifest(model={"name": "M", "parameters": {"a": [1] * 130_000}}))
    parse_task(manifest(model={"name": "M", "parameters": {"a": "\u5b66" * 80_000}}))


def test_nobody_waits_for_a_hundred_thousand_problems() -> None:
    told = problems(manifest(learners={"count": 1, "podOverrides": {"spec": {"volumes": [1] * 100_000}}}))
    assert len(told) == 100
    assert told[-1].startswith("spec.learners.podOverrides.spec.volumes[99]: 1 is not allowed")


ENDLESS = int("f" * 6000, 16)
"""What YAML can write as 0xfff..., and Python cannot write as decimals."""


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (ENDLESS, "a number of thousands of digits is not allowed: must be a finite number"),
        (1 << 1024, "must be a finite number"),
        ("a\ud800", "'a\\ud800' is not allowed: must be text, and no half of a surrogate pair"),
    ],
    ids=["endless", "larger than any float", "half of a pair"],
)
def test_what_json_cannot_hold_is_named(value: Any, told: str) -> None:
    (problem,) = problems(manifest(model={"name": "M", "parameters": {"a": [value]}}))
    assert problem.startswith("spec.model.parameters.a[0]: ")
    assert told in problem


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"name": ENDLESS}, "metadata.name: a number of thousands of digits is not allowed"),
        ({"namespace": 5}, "metadata.namespace: 5 is not allowed: must be an RFC 1123 label"),
        ({"namespace": "../x"}, "metadata.namespace: '../x' is not allowed: must be an RFC 1123 label"),
        ({"annotations": ["a"]}, "metadata.annotations: ['a'] is not allowed: must be a mapping"),
        ({"labels": "a"}, "metadata.labels: 'a' is not allowed: must be a mapping"),
    ],
    ids=["endless", "number", "path", "list", "text"],
)
def test_what_is_wrong_with_the_metadata(metadata: dict[str, Any], told: str) -> None:
    task = manifest()
    (problem,) = problems({**task, "metadata": {**task["metadata"], **metadata}})
    assert problem.startswith(told)


def test_defaults_and_locations() -> None:
    task = parse_task(manifest(learners={"count": 3, "location": "/data/{index}of{count}/{other}"}))
    assert task.min_learners == 3
    assert task.spec.learners.learner(1).location == "/data/1of3/{other}"
    assert (task.spec.strategy.label, task.spec.stop) == ("Vote", None)


def test_a_password_is_not_told_to_everybody() -> None:
    """What is wrong with a spec goes into status, Events and logs."""
    for location in ("s3://me:w:rd@bucket/models", "sftp://:word@host/x"):
        (told,) = problems(manifest(result={"location": location}))
        assert told.startswith(f"spec.result.location: '{location.partition(':')[0]}://") and ":...@" in told
        assert "word" not in told.partition(" is not allowed")[0] and "w:rd" not in told
