"""What is read of pods that leave, that hold containers of others, or that nobody has looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from collective_operator.cluster.complaints import complaints_about
from collective_operator.cluster.memory import Memory, kept
from collective_operator.cluster.protocol import TaskKey
from collective_operator.pods import read_pod

from .made_pods import Manifest, pod, terminated, waiting


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], "is being deleted"),
        (
            [("DisruptionTarget", "True", {"reason": "PreemptionByScheduler", "message": "make room"})],
            "is being deleted: PreemptionByScheduler: make room",
        ),
        (
            [("ContainersReady", "True", {}), ("Ready", "False", {})],
            "is being deleted: its node n1 does not answer",
        ),
    ],
)
def test_a_pod_on_its_way_out(conditions: Any, words: str) -> None:
    manifest = pod("Running", conditions=conditions)
    manifest["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    read = read_pod(manifest)
    assert read.trouble is not None and read.trouble.message == f"p: {words}"
    assert read.terminating and not read.ready and not read.running


@pytest.mark.parametrize(
    ("phase", "spec", "words"),
    [
        ("Running", {"nodeName": "n1"}, "is being deleted"),
        ("Failed", {"nodeName": "n1"}, "is being deleted: kept by its finalizers a, b"),
        ("Pending", {}, "is being deleted: kept by its finalizers a, b"),
    ],
)
def test_what_keeps_a_pod_is_named_once_nothing_else_does(phase: str, spec: Manifest, words: str) -> None:
    manifest = pod(phase)
    manifest["spec"] = spec
    manifest["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:30Z", "finalizers": ["a", "b"]}
    read = read_pod(manifest)
    assert read.trouble is not None and read.trouble.message == f"p: {words}"


def test_our_container_is_found_among_others() -> None:
    manifest = pod("Running", container=waiting("CrashLoopBackOff") | {"restartCount": 4})
    manifest["status"]["containerStatuses"].insert(0, {"name": "istio-proxy", "restartCount": 0, "state": {}})
    read = read_pod(manifest)
    assert read.restarts == 4 and read.trouble is not None
    # A task may call a container of its own as it likes: the pod's label tells which is ours.
    manifest["metadata"]["labels"] = {"app.kubernetes.io/component": "learner"}
    manifest["status"]["containerStatuses"].insert(0, {"name": "coordinator", "restartCount": 0, "state": {}})
    assert read_pod(manifest).restarts == 4


def test_a_container_that_was_laid_beside_ours_is_named() -> None:
    starting = pod("Pending", container=waiting("PodInitializing"))
    done = {"name": "done", "restartCount": 0, "state": terminated(0, "Completed")}
    fetch = {"name": "fetch", "restartCount": 1, **waiting("CrashLoopBackOff"), "lastState": terminated(4)}
    starting["status"]["initContainerStatuses"] = [done, fetch]
    trouble = read_pod(starting).trouble
    assert trouble is not None
    told = "p: container fetch: CrashLoopBackOff, Error, exit code 4"
    assert (str(trouble.reason), trouble.message) == ("Crashing", told)
    starting["status"]["initContainerStatuses"] = [done]
    assert read_pod(starting).trouble is None
    beside = pod("Running", container={"state": {"running": {}}})
    beside["status"]["containerStatuses"].append({"name": "proxy", "restartCount": 0, **waiting("ErrImagePull", "no")})
    trouble = read_pod(beside).trouble
    assert trouble is not None and trouble.message == "p: container proxy: ImagePullBackOff: no"


def test_what_only_an_event_tells_is_told_of_a_pod_that_is_being_made() -> None:
    manifest = pod("Pending", container=waiting("ContainerCreating"), conditions=[("PodScheduled", "True", {})])
    assert read_pod(manifest).being_made
    told = read_pod(manifest, complaint='FailedMount: secret "s" not found')
    trouble = told.trouble
    assert told.being_made and trouble is not None, "what is said next is to be heard as well"
    assert (str(trouble.reason), trouble.message) == ("ContainerNotCreated", 'p: FailedMount: secret "s" not found')


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"schedulerName": "volcano"}, "no scheduler has looked at it: does volcano run?"),
        ({"nodeName": "n9"}, "its node n9 has not taken it up: is there such a node?"),
    ],
)
async def test_a_pod_that_nobody_has_looked_at_says_so_after_a_while(spec: Manifest, words: str) -> None:
    async def complaint(age: int) -> str | None:
        made = datetime.now(UTC) - timedelta(seconds=age)
        manifest["metadata"]["creationTimestamp"] = made.isoformat()
        record = Memory().record(TaskKey("default", "digits"))
        return (await complaints_about(api, {"p": manifest}, record, claims={})).get("p")

    api, manifest = cast("Any", Events()), {**pod("Pending"), "kind": "Pod"}
    manifest["metadata"]["namespace"] = "default"
    manifest = kept("Pod", {**manifest, "spec": spec})
    assert await complaint(100) is None, "many may wait for the scheduler"
    said = await complaint(150)
    trouble = read_pod(manifest, complaint=said).trouble
    assert trouble is not None and (str(trouble.reason), trouble.message) == ("Unschedulable", f"p: {words}")
    manifest["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    assert await complaint(150) is None


class Events:
    """An API server that has none."""

    async def request(self, *_: Any, **__: Any) -> Manifest:
        return {"items": []}


def test_an_exit_status_that_learners_have_agreed_on_says_nothing_of_a_coordinator() -> None:
    ended = pod("Running", container={"name": "coordinator", "state": terminated(78, message="Error: no way")})
    ended["metadata"]["name"] = "digits-coordinator"
    trouble = read_pod(ended).trouble
    assert trouble is not None
    assert trouble.reason == "Crashing"
    assert trouble.message == "digits-coordinator: Error, exit code 78: no way"
