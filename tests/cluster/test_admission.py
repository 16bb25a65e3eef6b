"""What `kubectl apply` lets in, and the words with which it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from collective_operator.api import TaskInvalid, parse_task, rules
from collective_operator.desired.children import desired_children
from collective_operator.desired.platform import NetworkRules, Platform

from .control_plane import ApiError, ControlPlane
from .playground import Manifest, manifest
from .tasks import EVERYTHING, changed

EXAMPLES = Path(__file__).parents[2] / "examples"
TASKS = "/apis/collectivelearning.dev/v1alpha1/namespaces/default/collectivetasks"
REFUSED = [
    ("spec.learners.count", 0),
    ("spec.learners.count", 257),
    ("spec.learners.count", "2"),
    ("spec.learners.count", 1.5),
    ("spec.rounds", 0),
    ("spec.rounds", 100001),
    ("spec.rounds", ...),
    ("spec.seed", -1),
    ("spec.seed", 2**32),
    ("spec.strategy.vote.threshold", 1.01),
    ("spec.strategy.vote.threshold", -0.1),
    ("spec.strategy.type", "FedMagic"),
    ("spec.strategy.fedAvg", {"fraction": 0.5}),
    ("spec.strategy.fedProx", {"mu": 1}),
    ("spec.strategy.fedOpt", {}),
    ("spec.strategy.gate", {}),
    ("spec.strategy.aggregation", "Median"),
    ("spec.strategy.trimmedMean", {"share": 0.1}),
    ("spec.strategy.cyclic", {}),
    ("spec.stop", {}),
    ("spec.stop", {"minDelta": 1}),
    ("spec.stop.patience", 0),
    ("spec.model.name", ""),
    ("spec.model.name", ...),
    ("spec.model", ...),
    ("spec.dataLoader", ...),
    ("spec.learners", ...),
    ("spec.learners.imports", ["no module"]),
    ("spec.learners.imports", ["x"] * 17),
    ("spec.learners.codeFrom", {}),
    ("spec.learners.codeFrom", {"configMapRef": {}}),
    ("spec.learners.codeFrom", {"configMapRef": {"name": "My_models"}}),
    ("spec.learners.codeFrom", {"configMapRef": {"name": "m"}, "secretRef": {"name": "m"}}),
    ("spec.learners.podOverrides.specs", {}),
    ("spec.queueName", "Upper"),
    ("spec.managedBy", "me"),
    ("spec.learners.gpus", {}),
    ("spec.learners.gpus.count", 65),
    ("spec.learners.location", ""),
    ("spec.learners.resources.requests", {"cpu": "lots"}),
    ("spec.learners.resources.limits", {"memory": "-1"}),
    ("spec.coordinator.storage.size", "big"),
    ("spec.policy.minLearners", 0),
    ("spec.policy.minLearners", 3),
    ("spec.policy.roundTimeoutSeconds", 0),
    ("spec.policy.preRunningDeadlineSeconds", 604801),
    ("spec.policy.activeDeadlineSeconds", 0),
    ("spec.result.formats", []),
    ("spec.result.formats", ["pickle"]),
    ("spec.result.formats", ["onnx", "onnx"]),
    ("spec.result.location", "models/digits"),
    ("spec.result.location", "s3://me:key@models/digits"),
    ("spec.result.mlflow", "mlflow:5000"),
    ("spec.result.tensorBoard", "my logs"),
    ("spec.result.secretRef", {"name": "Keys"}),
    ("spec.policy.ttlSecondsAfterFinished", -1),
    ("spec.policy.cleanPods", "Failed"),
    ("spec.policy.backoff.limit", -1),
    ("spec.policy.backoff.maxSeconds", 0),
    ("spec.policy.backoff.initialSeconds", 301),
    ("spec.suspend", "yes"),
    ("spec.tls", {"mode": "TLS"}),
    ("spec.tls", {"mode": "off"}),
    ("spec.tls", {"mode": True}),
    ("spec.tls", {"mode": 0}),
    ("spec.tls", {"certificates": "mine"}),
    ("spec.learners.egress", {"to": []}),
    ("spec.learners.egress", [{}] * 17),
    ("spec.learnerz", 1),
    ("spec.learners.cuont", 1),
    ("metadata.name", "a" * 46),
    ("metadata.name", "1st"),
    ("metadata.name", "a.b"),
    ("metadata.name", "a-"),
]


def refusal(plane: ControlPlane, task: Manifest) -> str:
    """Ask as ``kubectl create --dry-run=server --validate=strict`` does, without starting a program each time."""
    with pytest.raises(ApiError) as refused:
        plane.request("POST", f"{TASKS}?dryRun=All&fieldValidation=Strict", task)
    message: str = json.loads(str(refused.value).partition(": ")[2])["message"]
    return message


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=lambda part: str(part)[:24])
def test_refused_by_both_with_the_field_named(plane: ControlPlane, path: str, value: Any) -> None:
    task = changed(path, value)
    field = path.removeprefix("metadata.").rsplit(".", 1)[-1]
    assert field in refusal(plane, task)
    with pytest.raises(TaskInvalid) as refused:
        parse_task(task)
    assert any(problem.path.startswith(path) for problem in refused.value.problems), refused.value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.policy.minLearners", 3, rules.QUORUM),
        ("spec.learners.sites", [{"name": "a"}], rules.COUNT_OR_SITES),
        ("spec.learners", {"location": "x"}, rules.COUNT_OR_SITES),
        ("metadata.name", "a" * 46, rules.NAME),
        *(
            (f"spec.strategy.{member}", {}, message)
            for member, (kind, message) in rules.STRATEGY_MEMBERS.items()
            if kind != "Vote"
        ),
        ("spec.strategy", {"type": "Cyclic", "vote": {}}, rules.STRATEGY_MEMBERS["vote"][1]),
        ("spec.strategy.aggregation", "Mean", rules.AGGREGATION),
        ("spec.strategy", {"type": "Cyclic", "aggregation": "Mean"}, rules.AGGREGATION),
        ("spec.strategy", {"type": "FedAvg", "trimmedMean": {}}, rules.TRIMMED_MEAN),
        ("spec.strategy", {"type": "FedAvg", "aggregation": "Median", "trimmedMean": {}}, rules.TRIMMED_MEAN),
        ("spec.strategy.gate", {"threshold": 0.5}, rules.GATE),
        ("spec.policy.backoff", {"initialSeconds": 20, "maxSeconds": 19}, rules.BACKOFF),
        ("spec.policy.backoff.initialSeconds", 301, rules.BACKOFF),
        ("spec.stop", {}, rules.STOP),
        ("spec.stop", {"testScore": 1, "minDelta": 0}, rules.MIN_DELTA),
    ],
)
def test_both_say_the_same_words(plane: ControlPlane, path: str, value: Any, message: str) -> None:
    task = changed(path, value)
    assert message in refusal(plane, task)
    with pytest.raises(TaskInvalid) as refused:
        parse_task(task)
    assert message in str(refused.value)


def test_kubectl_says_what_is_wrong(plane: ControlPlane) -> None:
    task = changed("spec.rounds", 0, changed("spec.learnerz", 1))
    answer = plane.kubectl("create", "--validate=strict", "-f", "-", stdin=task, check=False)
    assert answer.returncode != 0
    assert 'unknown field "spec.learnerz"' in answer.stderr


def test_everything_can_be_said(plane: ControlPlane) -> None:
    task = manifest("a" * 45, **EVERYTHING)
    made = plane.kubectl("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=task)
    stored = json.loads(made.stdout)
    assert stored["spec"]["model"]["parameters"] == EVERYTHING["model"]["parameters"]
    assert parse_task(stored).spec == parse_task(task).spec


def test_everything_can_be_said_of_every_site(plane: ControlPlane) -> None:
    learners = {key: value for key, value in EVERYTHING["learners"].items() if key != "count"}
    same = {key: learners[key] for key in ("image", "gpus", "resources", "podOverrides")}
    sites = [{"name": f"s{index}", "location": f"/{index}", **same} for index in range(256)]
    task = manifest(**(EVERYTHING | {"learners": learners | {"sites": sites}}))
    made = plane.kubectl("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=task)
    assert parse_task(json.loads(made.stdout)).spec == parse_task(task).spec


def test_defaults_are_the_same_on_both_sides(plane: ControlPlane) -> None:
    made = plane.kubectl("create", "--dry-run=server", "-o", "yaml", "-f", "-", stdin=manifest())
    stored = yaml.safe_load(made.stdout)
    assert stored["spec"]["policy"]["preRunningDeadlineSeconds"] == 900
    assert parse_task(stored).spec == parse_task(manifest()).spec


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.relative_to(EXAMPLES).as_posix()
)
def test_every_example_is_let_in(plane: ControlPlane, path: Path) -> None:
    """And so is everything that the operator makes of it, with what it lays over pods."""
    task = yaml.safe_load(path.read_text())
    create = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    plane.kubectl(*create, stdin=task)
    task["metadata"] |= {"namespace": "default", "uid": "0"}
    platform = Platform(learner_image="learner:test", coordinator_image="operator:test", network=NetworkRules())
    children = [child.build() for child in desired_children(parse_task(task), platform)]
    for child in children:
        del child["metadata"]["ownerReferences"]  # a task that is not there
    plane.kubectl(*create, stdin={"apiVersion": "v1", "kind": "List", "items": children})
