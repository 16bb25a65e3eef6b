"""What is wrong with a pod, in Kubernetes' own words, as kubelets, schedulers and controllers write them."""

from __future__ import annotations

import pytest

from collective_operator.pods import read_pod

from .made_pods import Manifest, pod, terminated, waiting

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
