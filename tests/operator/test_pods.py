"""What is wrong with a pod, in Kubernetes' own words, as kubelets, schedulers and controllers write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from collective_operator.cluster.complaints import complaints_about
from collective_operator.cluster.memory import Memory, kept
from collective_operator.cluster.protocol import TaskKey
from collective_operator.pods import read_pod

Manifest = dict[str, Any]


def pod(phase: str, *, container: Manifest | None = None, conditions: Any = (), **status: Any) -> Manifest:
    return {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": phase,
            "conditions": [{"type": kind, "status": holds, **more} for kind, holds, more in conditions],
            "containerStatuses": [] if container is None else [{"name": "learner", "restartCount": 0, **container}],
            **status,
        },
    }


def waiting(reason: str, message: str = "") -> Manifest:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def terminated(code: int, reason: str = "Error", message: str = "") -> Manifest:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


NOT_READY = ("Ready", "False", {"reason": "ContainersNotReady"})
PULL = 'Back-off pulling image "x:1": ErrImagePull: rpc error: code = NotFound desc = x:1: not found'
TRACE = 'INFO begins\nTraceback (most recent call last):\n  File "x"\nValueError: no moon\n  detail\n'

CASES: list[tuple[str, Manifest, str, str]] = [
    (
        "a pull that fails",
        pod("Pending", container=waiting("ErrImagePull", "rpc error: code = NotFound desc = x:1: not found")),
        "ImageUnavailable",
        "ImagePullBackOff: rpc error: code = NotFound desc = x:1: not found",
    ),
    (
        "the pause after it",
        pod("Pending", container=waiting("ImagePullBackOff", PULL)),
        "ImageUnavailable",
        "ImagePullBackOff: rpc error: code = NotFound desc = x:1: not found",
    ),
    (
        "an old kubelet's pause",
        pod("Pending", container=waiting("ImagePullBackOff", 'Back-off pulling image "x:1"')),
        "ImageUnavailable",
        'ImagePullBackOff: Back-off pulling image "x:1"',
    ),
    (
        "a name that is none",
        pod("Pending", container=waiting("InvalidImageName", 'Failed to apply default image tag "X"')),
        "ImageUnavailable",
        'InvalidImageName: Failed to apply default image tag "X"',
    ),
    (
        "a Secret that is not there",
        pod("Pending", container=waiting("CreateContainerConfigError", 'secret "s" not found')),
        "ContainerNotCreated",
        'CreateContainerConfigError: secret "s" not found',
    ),
    (
        "a container that does not start",
        pod("Running", container=waiting("RunContainerError", 'exec: "nope": not found')),
        "ContainerNotCreated",
        'RunContainerError: exec: "nope": not found',
    ),
    (
        "a program that the image does not have, while it is not tried",
        pod(
            "Running",
            container=waiting("CrashLoopBackOff", "back-off 10s")
            | {"restartCount": 1, "lastState": terminated(128, "StartError", 'exec: "python": not found')},
        ),
        "ContainerNotCreated",
        'RunContainerError: exec: "python": not found',
    ),
    (
        "a sandbox that cannot be made: each try has another",
        pod("Pending", container=waiting("CreateContainerError", f'sandbox "{"0af" * 21}9": lost')),
        "ContainerNotCreated",
        'CreateContainerError: sandbox "...": lost',
    ),
    (
        "a digest is no such thing, and a port is",
        pod(
            "Pending",
            container=waiting(
                "ErrImagePull",
                f"x@sha256:{'0af' * 21}9: dial 1.2.3.4:443: read udp 10.0.0.5:3412->10.96.0.10:53: timeout",
            ),
        ),
        "ImageUnavailable",
        f"ImagePullBackOff: x@sha256:{'0af' * 21}9: dial 1.2.3.4:443: read udp 10.0.0.5->10.96.0.10:53: timeout",
    ),
    (
        "what must end well before, tried once more",
        pod(
            "Pending",
            container=waiting("PodInitializing"),
            initContainerStatuses=[
                {
                    "name": "prep",
                    "ready": False,
                    "restartCount": 2,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}},
                    "lastState": terminated(137, "OOMKilled"),
                }
            ],
        ),
        "Crashing",
        "container prep: restarted after OOMKilled, exit code 137",
    ),
    (
        "no memory left",
        pod("Running", container={"state": terminated(137, "OOMKilled", "half a line of the log")}),
        "Crashing",
        "OOMKilled, exit code 137",
    ),
    (
        "a crash loop",
        pod("Running", container=waiting("CrashLoopBackOff", "back-off 40s") | {"lastState": terminated(1, "Error")}),
        "Crashing",
        "CrashLoopBackOff, Error, exit code 1",
    ),
    (
        "the line that tells why",
        pod("Running", container={"state": terminated(1, message=TRACE)}),
        "Crashing",
        "Error, exit code 1: ValueError: no moon",
    ),
    (
        "our own programs' last word",
        pod("Running", container={"state": terminated(2, message="INFO x\nError: port 9995 is taken\n")}),
        "Crashing",
        "Error, exit code 2: port 9995 is taken",
    ),
    (
        "tried again, and not up yet",
        pod(
            "Running",
            container={
                "state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}},
                "restartCount": 1,
                "lastState": terminated(137, "OOMKilled"),
            },
            conditions=[("Ready", "False", {"lastTransitionTime": "2026-01-01T00:00:05Z"})],
        ),
        "Crashing",
        "restarted after OOMKilled, exit code 137",
    ),
    (
        "a broken import",
        pod("Running", container={"state": terminated(78, message="x\nError: --import m failed: E: no\n  File\n")}),
        "ImportFailed",
        "--import m failed: E: no\n  File",
    ),
    (
        "no node",
        pod(
            "Pending",
            conditions=[
                ("PodScheduled", "False", {"reason": "Unschedulable", "message": "0/3 nodes: Insufficient gpu"})
            ],
        ),
        "Unschedulable",
        "Unschedulable: 0/3 nodes: Insufficient gpu",
    ),
    (
        "a queue",
        pod(
            "Pending",
            conditions=[("PodScheduled", "False", {"reason": "SchedulingGated", "message": "Scheduling is blocked"})],
        ),
        "SchedulingGated",
        "SchedulingGated: Scheduling is blocked",
    ),
    (
        "evicted by its kubelet",
        pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
        "PodLost",
        "Evicted: The node was low on resource: memory.",
    ),
    (
        "a deadline of the pod",
        pod("Failed", reason="DeadlineExceeded", message="Pod was active on the node longer than the deadline"),
        "PodLost",
        "DeadlineExceeded: Pod was active on the node longer than the deadline",
    ),
    (
        "refused by its node",
        pod("Failed", reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices"),
        "PodLost",
        "UnexpectedAdmissionError: Allocate failed due to no healthy devices",
    ),
    (
        "a node that is gone",
        pod("Running", conditions=[("ContainersReady", "True", {}), ("Ready", "False", {})]),
        "PodLost",
        "its node n1 does not answer",
    ),
    (
        "a node that an old controller knows",
        pod("Running", reason="NodeLost"),
        "PodLost",
        "its node n1 does not answer",
    ),
    ("an end without a word", pod("Failed"), "Crashing", "ended as Failed"),
]


@pytest.mark.parametrize(("manifest", "reason", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_trouble(manifest: Manifest, reason: str, words: str) -> None:
    trouble = read_pod(manifest, complaint="FailedMount: no such volume").trouble
    assert trouble is not None
    assert (str(trouble.reason), trouble.message) == (reason, f"p: {words}")


@pytest.mark.parametrize(
    "manifest",
    [
        pod("Pending"),
        pod("Pending", container=waiting("ContainerCreating")),
        pod("Running", container={"state": {"running": {}}}, conditions=[("Ready", "True", {})]),
        pod("Running", container={"state": {"running": {}}}, conditions=[NOT_READY]),
        pod(
            "Running",
            container={"state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}}, "lastState": terminated(1)},
            conditions=[("Ready", "False", {"lastTransitionTime": "2026-01-01T00:00:10Z", "reason": "x"})],
        ),
        pod(
            "Running",
            container={"state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}}, "lastState": terminated(0)},
            conditions=[("Ready", "False", {"lastTransitionTime": "2026-01-01T00:00:05Z", "reason": "x"})],
        ),
        pod("Running", conditions=[("ContainersReady", "True", {}), ("Ready", "False", {"reason": "ReadinessGates"})]),
        pod("Succeeded", container={"state": terminated(0, "Completed", "{}")}),
    ],
    ids=["new", "being made", "ready", "starting", "busy after an old crash", "ended well before", "gated", "done"],
)
def test_no_trouble(manifest: Manifest) -> None:
    assert read_pod(manifest).trouble is None


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
    trouble = read_pod(manifest, complaint='FailedMount: secret "s" not found').trouble
    assert trouble is not None
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
