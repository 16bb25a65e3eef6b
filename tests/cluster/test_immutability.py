"""What of a task may change, and when: in the words of the API server."""

from __future__ import annotations

from typing import Any

import pytest

from collective_operator.api import rules

from .playground import Namespace, manifest
from .tasks import changed

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


@pytest.mark.parametrize(("path", "value"), HELD)
def test_what_learners_ask_of_a_node_changes_once_no_pod_is_there(namespace: Namespace, path: str, value: Any) -> None:
    # An operator that serves other tests leaves its status alone.
    task = manifest(suspend=True, managedBy="kueue.x-k8s.io/multikueue")
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
