"""What `kubectl apply` lets in, and the words with which it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from collective_operator.api import TaskInvalid, parse_task, rules
from collective_operator.desired.children import desired_children
from collective_operator.desired.platform import NetworkRules, Platform

from .control_plane import ControlPlane, eventually
from .playground import Manifest, Namespace, manifest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CRD = yaml.safe_load((ROOT / "crds" / "collectivetask.yaml").read_text())
EVERYTHING: dict[str, Any] = {
    "model": {"name": "SKLEARN_DIGITS", "parameters": {"alpha": 0.1, "deep": {"list": [1, None]}}},
    "dataLoader": {"name": "DIGITS", "parameters": {"skew": 0.5}},
    "rounds": 100000,
    "seed": 4294967295,
    "strategy": {
        "type": "FedOpt",
        "fedOpt": {"method": "AvgM", "learningRate": 1, "beta1": 0, "beta2": 0.9, "tau": 1e-12, "fraction": 0.001},
        "aggregation": "TrimmedMean",
        "trimmedMean": {"share": 0.49},
        "gate": {"type": "Vote", "threshold": 1},
    },
    "stop": {"testScore": -1e9, "patience": 100000, "minDelta": 1e9},
    "learners": {
        "count": 256,
        "location": "s3://b/{index}",
        "image": "me/learner:1",
        "imports": ["a", "b.c"],
        "codeFrom": {"configMapRef": {"name": "my-models"}},
        "gpus": {"count": 1},
        "resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}, "limits": {"cpu": "2500m"}},
        "podOverrides": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
            "spec": {"tolerations": [{"operator": "Exists"}], "volumes": [{"name": "v", "emptyDir": {}}]},
        },
        "egress": [
            {
                "to": [
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}},
                        "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["minio"]}]},
                    },
                ],
                "ports": [{"port": 9000, "endPort": 9010}, {"port": 53, "protocol": "UDP"}],
            },
            {"ports": [{"port": 443}]},
        ],
    },
    "coordinator": {
        "resources": {"limits": {"memory": "64Mi"}},
        "storage": {"size": "10Gi", "storageClassName": "x"},
        "egress": [],
    },
    "queueName": "gpu-queue",
    "managedBy": "collectivelearning.dev/operator",
    "policy": {
        "minLearners": 256,
        "roundTimeoutSeconds": 1,
        "preRunningDeadlineSeconds": 1,
        "activeDeadlineSeconds": 1,
        "backoff": {"limit": 0, "initialSeconds": 3600, "maxSeconds": 86400},
        "cleanPods": "All",
        "ttlSecondsAfterFinished": 2147483647,
    },
    "result": {
        "formats": ["onnx", "safetensors"],
        "location": "abfs://models@lab.dfs.core.windows.net/digits",
        "secretRef": {"name": "bucket-keys"},
        "mlflow": "http://mlflow.lab.svc:5000/team",
        "tensorBoard": "logs/digits",
    },
    "suspend": False,
    "tls": {"mode": "Mutual"},
}


def changed(path: str, value: Any, task: Manifest | None = None) -> Manifest:
    """Copy a task with one member set, or removed with `...`."""
    copied = copy.deepcopy(task or manifest())
    *parents, last = path.split(".")
    here = copied
    for parent in parents:
        here = here.setdefault(parent, {})
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return copied


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


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=lambda part: str(part)[:24])
def test_refused_by_both_with_the_field_named(plane: ControlPlane, path: str, value: Any) -> None:
    task = changed(path, value)
    answer = plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=task, check=False)
    assert answer.returncode != 0
    field = path.removeprefix("metadata.").rsplit(".", 1)[-1]
    assert field in answer.stderr
    with pytest.raises(TaskInvalid) as refused:
        parse_task(task)
    assert any(problem.path.startswith(path) for problem in refused.value.problems), refused.value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.policy.minLearners", 3, rules.QUORUM),
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
    assert message in plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=task, check=False).stderr
    with pytest.raises(TaskInvalid) as refused:
        parse_task(task)
    assert message in str(refused.value)


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


def test_sites_do_not_change(namespace: Namespace) -> None:
    task = manifest(learners={"sites": [{"name": "a"}, {"name": "b"}], "location": "x"})
    namespace.apply(task)
    for sites in ([{"name": "a"}], [{"name": "b"}, {"name": "a"}], [{"name": "a", "location": "i"}, {"name": "b"}]):
        refused = namespace.apply(changed("spec.learners.sites", sites, task), check=False)
        assert "spec.learners.sites is immutable" in refused.stderr
    counted = changed("spec.learners", {"count": 2, "location": "x"}, task)
    assert "spec.learners.sites is immutable" in namespace.apply(counted, check=False).stderr
    image = changed("spec.learners.sites", [{"name": "a", "image": "i"}, {"name": "b"}], task)
    assert WHILE_SUSPENDED.format("learners") in namespace.apply(image, check=False).stderr


def test_a_queue_admits_so_many_and_no_more(namespace: Namespace) -> None:
    task = manifest(queueName="q", managedBy="kueue.x-k8s.io/multikueue", learners={"count": 2, "location": "x"})
    namespace.apply(task)
    for path, value, message in (
        ("spec.learners.count", 3, "spec.learners.count is immutable with spec.queueName"),
        ("spec.queueName", "r", "spec.queueName is immutable"),
        ("spec.queueName", ..., "spec.queueName is immutable"),
        ("spec.managedBy", ..., "spec.managedBy is immutable"),
    ):
        assert message in namespace.apply(changed(path, value, task), check=False).stderr


def test_defaults_are_the_same_on_both_sides(plane: ControlPlane) -> None:
    made = plane.kubectl("create", "--dry-run=server", "-o", "yaml", "-f", "-", stdin=manifest())
    stored = yaml.safe_load(made.stdout)
    assert stored["spec"]["policy"]["preRunningDeadlineSeconds"] == 900
    assert parse_task(stored).spec == parse_task(manifest()).spec


WHILE_SUSPENDED = "of spec.{} may change only while the task is suspended, which its condition Suspended tells"
HELD = [
    ("spec.learners.image", "other:1"),
    ("spec.learners.gpus", {"count": 1}),
    ("spec.learners.resources", {"limits": {"cpu": 1}}),
    ("spec.learners.podOverrides", {"spec": {"priorityClassName": "high"}}),
    ("spec.coordinator.resources", {"limits": {"memory": "1Gi"}}),
    ("spec.coordinator.podOverrides", {"metadata": {"labels": {"a": "b"}}}),
]
IMMUTABLE = [
    *((path, value, WHILE_SUSPENDED.format(path.split(".")[1])) for path, value in HELD),
    ("spec.model.name", "OTHER", "spec.model is immutable"),
    ("spec.model.parameters", {"alpha": {"a": 2}}, "spec.model is immutable"),
    ("spec.dataLoader.parameters", {"skew": 1}, "spec.dataLoader is immutable"),
    ("spec.rounds", 21, "spec.rounds is immutable"),
    ("spec.seed", 1, "spec.seed is immutable"),
    ("spec.strategy.vote", {"threshold": 0.6}, "spec.strategy is immutable"),
    ("spec.strategy", {"type": "FedAvg"}, "spec.strategy is immutable"),
    ("spec.stop", {"patience": 3}, "spec.stop is immutable"),
    ("spec.learners.count", 3, "spec.learners.count may change only where spec.learners.location has no {count}"),
    ("spec.learners.location", "x", "spec.learners.location is immutable"),
    ("spec.learners.imports", ["a"], "spec.learners.imports is immutable"),
    ("spec.coordinator.storage.size", "2Gi", "spec.coordinator.storage is immutable"),
    ("spec.tls.mode", "Off", "spec.tls is immutable"),
    ("spec.tls.mode", False, "spec.tls is immutable"),
    ("spec.policy.roundTimeoutSeconds", 1, "spec.policy.roundTimeoutSeconds is immutable"),
    ("spec.result.formats", ["safetensors", "onnx"], "spec.result is immutable"),
    ("spec.result.location", "s3://models/digits", "spec.result is immutable"),
    ("spec.policy.preRunningDeadlineSeconds", 1, "spec.policy.preRunningDeadlineSeconds is immutable"),
]


def test_what_cannot_change_and_what_can(namespace: Namespace) -> None:
    task = manifest(model={"name": "M", "parameters": {"alpha": {"a": 1}}})
    namespace.apply(task)
    for path, value, message in IMMUTABLE:
        refused = namespace.apply(changed(path, value, task), check=False)
        assert refused.returncode != 0, path
        assert message in refused.stderr
    namespace.apply(changed("spec.learners.egress", [{"ports": [{"port": 443}]}], task))
    namespace.apply(changed("spec.policy.activeDeadlineSeconds", 7, task))
    namespace.apply(changed("spec.policy.minLearners", 1, task))
    namespace.apply(changed("spec.policy.cleanPods", "All", task))
    namespace.apply(changed("spec.policy.ttlSecondsAfterFinished", 5, task))
    namespace.apply(changed("spec.policy.backoff.limit", 3, task))
    namespace.apply(changed("spec.suspend", True, task))
    namespace.apply(task)


@pytest.mark.parametrize(("path", "value"), HELD)
def test_what_learners_ask_of_a_node_changes_once_no_pod_is_there(namespace: Namespace, path: str, value: Any) -> None:
    task = manifest(suspend=True)
    namespace.apply(task)
    other = changed(path, value, task)

    def say(kind: str, status: str, reason: str) -> None:
        condition = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        body = {"status": {"conditions": [condition]}}
        namespace.plane.request("PATCH", f"{namespace.tasks}/digits/status", body, kind="application/merge-patch+json")

    words = WHILE_SUSPENDED.format(path.split(".")[1])
    for said in (None, ("Suspended", "False", "Suspending"), ("Failed", "True", "Aborted")):
        if said:
            say(*said)
        assert words in namespace.apply(other, check=False).stderr
    say("Suspended", "True", "Suspended")
    namespace.apply(other)
    namespace.apply(task)
    namespace.apply(changed("spec.suspend", False, task))
    assert words in namespace.apply(other, check=False).stderr, "its pods are being made"
    say("Failed", "True", "InvalidSpec")
    namespace.apply(other)
    assert namespace.task()["spec"].get("suspend") is True


def test_the_number_of_learners_may_change_where_it_is_no_part_of_the_location(namespace: Namespace) -> None:
    task = manifest(learners={"count": 2, "location": "s3://b/{index}", "image": "i", "gpus": {"count": 1}})
    namespace.apply(task)
    more = changed("spec.learners.count", 5, task)
    namespace.apply(more)
    namespace.apply(changed("spec.policy.minLearners", 4, more))
    fewer = changed("spec.policy.minLearners", 4, changed("spec.learners.count", 3, task))
    assert rules.QUORUM in namespace.apply(fewer, check=False).stderr
    namespace.apply(changed("spec.policy.minLearners", ..., changed("spec.policy.minLearners", 1, task)))
    code = {"configMapRef": {"name": "m"}}
    for path, value in (("image", ...), ("gpus", {"count": 2}), ("gpus", ...), ("codeFrom", code)):
        refused = namespace.apply(changed(f"spec.learners.{path}", value, task), check=False)
        held = WHILE_SUSPENDED.format("learners")
        assert (f"spec.learners.{path} is immutable" if path == "codeFrom" else held) in refused.stderr


def test_kubectl_explains_every_field(plane: ControlPlane) -> None:
    missing: list[str] = []

    def walk(schema: dict[str, Any], path: str) -> None:
        if "description" not in schema and path not in ("ctask.metadata",):
            missing.append(path)
        for name, member in schema.get("properties", {}).items():
            walk(member, f"{path}.{name}")
        for inner in ("items", "additionalProperties"):
            if isinstance(schema.get(inner), dict):
                walk(schema[inner], f"{path}[]")

    root = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    walk(root, "ctask")
    assert missing == []
    explained = eventually(lambda: plane.kubectl("explain", "ctask", "--recursive", check=False).stdout)
    for name in ("minLearners", "storageClassName", "learnerStatuses", "testScore"):
        assert name in explained
    learners = " ".join(plane.kubectl("explain", "ctask.spec.learners").stdout.split())
    assert root["properties"]["spec"]["properties"]["learners"]["description"].split(".")[0] in learners


def test_short_name_and_category(namespace: Namespace) -> None:
    namespace.apply(manifest())
    get = namespace.plane.kubectl
    listing = ("-n", namespace.name, "get", "collective", "-o", "name")
    eventually(lambda: "collectivetask" in get(*listing, check=False).stdout)
    assert "collectivetask" not in get("-n", namespace.name, "get", "all", "-o", "name").stdout


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
