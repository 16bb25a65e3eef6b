"""Versions that meet on a real API server: children of earlier operators, and a definition older than the operator."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CRD
from .control_plane import ControlPlane, eventually
from .playground import TASKS, Coordinator, Namespace, Operator, manifest

RECORDED = sorted((Path(__file__).parents[1] / "operator" / "recorded").glob("*.json"))
COLLECTIONS = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}
SERVER_SET = ("uid", "resourceVersion", "creationTimestamp", "generation")
NEWER = {
    "spec": ("suspend", "tls", "queueName", "managedBy", "seed"),
    "status": ("coordinator", "suspendedSeconds", "reason", "observedGeneration"),
}
"""What an older definition does not have, and drops."""

Manifest = dict[str, Any]


@pytest.fixture
def operator(shared_operator: Operator, namespace: Namespace, tmp_path: Path) -> Iterator[Operator]:
    """An operator that a test starts when it is ready for it."""
    shared_operator.stop()
    made = Operator(namespace.plane, tmp_path / "operator", options=("--namespace", namespace.name))
    yield made
    if hasattr(made, "process"):
        made.stop()


def recreated(namespace: Namespace, recorded: Path, coordinator: Coordinator) -> None:
    """Have the API server hold what an earlier operator left there."""
    record = json.loads(recorded.read_text())
    task, *children = record["objects"]
    namespace.apply({**task, "metadata": {"name": "digits"}, "status": {}})
    uid = namespace.task()["metadata"]["uid"]
    for child in children:
        made = copy.deepcopy(child)
        made.pop("status", None)
        for member in SERVER_SET:
            made["metadata"].pop(member, None)
        made["metadata"]["namespace"] = namespace.name
        made["metadata"]["ownerReferences"][0]["uid"] = uid
        namespace.plane.request("POST", COLLECTIONS[made["kind"]].format(namespace.name), made)
    for name in namespace.pods():
        namespace.run_pod(name, address=coordinator.address)
    status = task["status"]
    status["coordinator"]["uid"] = namespace.uid("digits-coordinator")
    namespace.plane.request(
        "PATCH", f"{namespace.tasks}/digits/status", {"status": status}, kind="application/merge-patch+json"
    )
    coordinator.said = {**record["progress"], "uid": uid}


def everything(namespace: Namespace) -> dict[str, str]:
    """The uid of every child but the Secrets, which are made where they are missing."""
    found = [
        item
        for path in COLLECTIONS.values()
        for item in namespace.plane.request("GET", path.format(namespace.name))["items"]
        if "collectivelearning.dev/task" in item["metadata"].get("labels", {})
    ]
    return {item["metadata"]["uid"]: item["metadata"]["name"] for item in found}


def is_looked_at(namespace: Namespace, coordinator: Coordinator) -> None:
    """Have rounds go on, and see that the operator tells of it."""
    asked = coordinator.asked
    coordinator.say(round={"current": 9, "total": 20, "accepted": 9})
    eventually(lambda: namespace.status()["round"]["current"] == 9, timeout=60)
    eventually(lambda: coordinator.asked > asked + 4)


@pytest.mark.parametrize("recorded", RECORDED, ids=[path.stem for path in RECORDED])
def test_children_of_an_earlier_version_are_kept(
    namespace: Namespace, operator: Operator, coordinator: Coordinator, recorded: Path
) -> None:
    recreated(namespace, recorded, coordinator)
    before = everything(namespace)
    operator.start()
    is_looked_at(namespace, coordinator)
    assert everything(namespace) == before
    assert (namespace.status()["phase"], namespace.status()["coordinator"]["attempts"]) == ("Running", 0)


def test_what_an_earlier_operator_dropped_of_a_pod_costs_none_of_a_task_that_runs(
    namespace: Namespace, operator: Operator, coordinator: Coordinator, tmp_path: Path
) -> None:
    record = json.loads(RECORDED[0].read_text())
    spec = record["objects"][0]["spec"]
    for part in ("learners", "coordinator"):
        spec.setdefault(part, {})["podOverrides"] = {"spec": {"nodeSelectr": {"gpu": "a100"}}}
    recorded = tmp_path / "recorded.json"
    recorded.write_text(json.dumps(record))
    recreated(namespace, recorded, coordinator)
    operator.start()
    is_looked_at(namespace, coordinator)
    for name in namespace.pods():
        uid = namespace.uid(name)
        assert uid
        namespace.plane.request("DELETE", f"{namespace.core}/pods/{name}?gracePeriodSeconds=0")
        namespace.await_another(name, uid)


def older(definition: Manifest) -> Manifest:
    """The definition as it was before some fields: without them, and without the rules that may speak of them."""

    def without_rules(node: Any) -> Any:
        if isinstance(node, list):
            return [without_rules(value) for value in node]
        if not isinstance(node, dict):
            return node
        return {key: without_rules(value) for key, value in node.items() if key != "x-kubernetes-validations"}

    made: Manifest = without_rules(definition)
    schema = made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part, fields in NEWER.items():
        for name in fields:
            del schema[part]["properties"][name]
    failures = schema["status"]["properties"]["learnerStatuses"]["items"]["properties"]
    del failures["failures"]
    return made


@pytest.fixture
def older_definition(plane: ControlPlane) -> Iterator[None]:
    definition = yaml.safe_load(CRD.read_text())
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=older(definition))
    eventually(lambda: not _knows(plane, "suspend"), what="the older definition")
    yield
    newer_definition(plane)


def newer_definition(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    eventually(lambda: _knows(plane, "suspend"), what="the newer definition")


def _knows(plane: ControlPlane, field: str) -> bool:
    """Tell whether the API server goes by a definition with this field by now."""
    schema = plane.request("GET", f"/openapi/v3{TASKS}")
    (task,) = [found for name, found in schema["components"]["schemas"].items() if name.endswith(".CollectiveTask")]
    return field in task["properties"]["spec"]["properties"]


def test_an_older_definition_costs_nothing_nor_does_its_upgrade(
    plane: ControlPlane, older_definition: None, namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    operator.start()
    namespace.apply(manifest(), check=False)
    namespace.await_pods(3)
    coordinator.say(uid=namespace.task()["metadata"]["uid"], phase="Running")
    for name in namespace.pods():
        namespace.run_pod(name, address=coordinator.address)
    eventually(lambda: namespace.status()["phase"] == "Running")
    assert "coordinator" not in namespace.status(), "the definition drops it"
    before = everything(namespace)
    is_looked_at(namespace, coordinator)
    version, asked = namespace.task()["metadata"]["resourceVersion"], coordinator.asked
    eventually(lambda: coordinator.asked > asked + 4)
    assert namespace.task()["metadata"]["resourceVersion"] == version, "what is dropped is not written again and again"
    newer_definition(plane)
    coordinator.say(round={"current": 10, "total": 20, "accepted": 10})
    eventually(lambda: "coordinator" in namespace.status(), timeout=60, what="a status with all that there is")
    assert everything(namespace) == before
    assert (namespace.status()["phase"], namespace.status()["round"]["current"]) == ("Running", 10)
