"""What Kubernetes says in Events alone, asked of a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes.aio.client.configuration import Configuration

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.complaints import complaints_about
from collective_operator.cluster.connection import Connection
from collective_operator.cluster.memory import Memory, Record
from collective_operator.cluster.protocol import TaskKey
from collective_operator.pods import read_pod
from collective_operator.reasons import Reason

from .control_plane import TOKEN, ControlPlane
from .playground import Manifest, Namespace


def a_record() -> Record:
    return Memory().record(TaskKey("default", "digits"))


def being_made(name: str, age: timedelta, **status: Any) -> Manifest:
    created = datetime.now(UTC) - age
    conditions = [{"type": "PodScheduled", "status": "True"}]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created.isoformat()},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Pending", "conditions": conditions, **status},
    }


@asynccontextmanager
async def logged_in(plane: ControlPlane, asked: list[str]) -> AsyncIterator[ApiServer]:
    configuration = Configuration(host=plane.url, api_key={"BearerToken": f"Bearer {TOKEN}"})
    configuration.ssl_ca_cert = str(plane.authority)

    def count(*, verb: str, resource: str, code: int) -> None:
        asked.append(f"{verb} {resource} {code}")

    api = ApiServer(Connection(configuration, agent="a test"), count)
    try:
        yield api
    finally:
        await api.close()


def warn(namespace: Namespace, about: str, reason: str, message: str, minute: int, kind: str = "Warning") -> None:
    event = {
        "metadata": {"generateName": "x."},
        "involvedObject": {"kind": "Pod", "namespace": namespace.name, "uid": f"uid-{about}"},
        "type": kind,
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-01-01T00:{minute:02}:00Z",
    }
    namespace.plane.request("POST", f"{namespace.core}/events", event)


async def test_the_newest_warning_about_pods_that_are_late(namespace: Namespace) -> None:
    warn(namespace, "late", "FailedMount", 'secret "s" not found', 5)
    warn(namespace, "late", "FailedScheduling", "no node", 9)
    warn(namespace, "late", "FailedAttachVolume", "busy", 1)
    warn(namespace, "late", "Pulling", "x", 9, kind="Normal")
    warn(namespace, "young", "FailedMount", "of no interest", 5)
    warn(namespace, "pulling", "Failed", "its status tells", 5)
    hour, pods = timedelta(hours=1), {}
    for pod in (
        being_made("late", hour),
        being_made("young", timedelta(seconds=1)),
        being_made("silent", hour),
        being_made(
            "pulling",
            hour,
            containerStatuses=[{"restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
        ),
        being_made("waits", hour, conditions=[{"type": "PodScheduled", "status": "False"}]),
        being_made("runs", hour, phase="Running"),
    ):
        pod["metadata"]["namespace"] = namespace.name
        pods[pod["metadata"]["name"]] = pod
    record, asked, told = a_record(), list[str](), {"late": 'FailedMount: secret "s" not found'}
    async with logged_in(namespace.plane, asked) as api:
        assert await complaints_about(api, pods, record, claims={}) == told
        assert asked == ["list events 200"] * 2, "about two, and about no other"
        assert await complaints_about(api, pods, record, claims={}) == told
        assert len(asked) == 2, "and not again for a while"
        pods["late"]["status"]["phase"] = "Running"
        assert await complaints_about(api, pods, record, claims={}) == {}
        assert len(asked) == 2


async def test_of_a_volume_that_does_not_come_its_claim_tells(namespace: Namespace) -> None:
    warn(namespace, "claim", "ProvisioningFailed", 'storageclass.storage.k8s.io "nope" not found', 5)
    words = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    pod = being_made("digits-coordinator", timedelta(hours=1), conditions=[unscheduled])
    del pod["spec"]["nodeName"]
    pod["metadata"]["namespace"] = namespace.name
    claims = {"digits-coordinator": {"metadata": {"name": "x", "namespace": namespace.name, "uid": "uid-claim"}}}
    asked: list[str] = []
    async with logged_in(namespace.plane, asked) as api:
        told = await complaints_about(api, {"digits-coordinator": pod}, a_record(), claims=claims)
    assert told == {"digits-coordinator": 'ProvisioningFailed: storageclass.storage.k8s.io "nope" not found'}
    trouble = read_pod(pod, complaint=told["digits-coordinator"]).trouble
    assert trouble and trouble.message == f"digits-coordinator: Unschedulable: {words}: {told['digits-coordinator']}"


async def test_a_scheduler_that_waits_for_a_volume_has_looked_at_the_pod(namespace: Namespace) -> None:
    """Until a volume is made where its pod is to be, which may never be, the pod says nothing."""
    waits, claim = "Waiting for a volume to be created by the external provisioner 'example.com/none'", Manifest()
    for minute, reason, message in ((1, "WaitForFirstConsumer", "no consumer yet"), (5, "ExternalProvisioning", waits)):
        warn(namespace, "claim", reason, message, minute, kind="Normal")

    async def told(age: int) -> str | None:
        pod = being_made("digits-coordinator", timedelta(seconds=age), conditions=[])
        pod["spec"] = {}
        pod["metadata"]["namespace"] = namespace.name
        async with logged_in(namespace.plane, []) as api:
            said = await complaints_about(
                api, {"digits-coordinator": pod}, a_record(), claims={"digits-coordinator": claim}
            )
        trouble = read_pod(pod, complaint=said.get("digits-coordinator")).trouble
        assert trouble is None or trouble.reason is Reason.UNSCHEDULABLE
        return trouble and trouble.message

    claim |= {
        "metadata": {"name": "x", "namespace": namespace.name, "uid": "uid-claim"},
        "status": {"phase": "Pending"},
    }
    assert await told(30) is None, "it takes its time"
    assert await told(50) == await told(150) == f"digits-coordinator: ExternalProvisioning: {waits}"
    warn(namespace, "claim", "ProvisioningFailed", "no space left", 3)
    assert await told(50) == "digits-coordinator: ProvisioningFailed: no space left"
    claim["status"]["phase"] = "Bound"
    assert await told(150) == "digits-coordinator: no scheduler has looked at it: does the scheduler run?"
