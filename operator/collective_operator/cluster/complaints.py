"""Why a pod is not being made: of a volume that cannot be mounted or made, and the like, only Events tell.

They are asked for when a pod stands there for long, of few pods, and not often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.memory import Record
from collective_operator.cluster.protocol import ClusterError, Manifest
from collective_operator.pods import read_pod
from collective_operator.wording import unstamp

_PATIENCE_SECONDS = 45
"""Images are pulled and volumes attached in this time, where all is well and the image is not large."""
_AGAIN_SECONDS = 60
_PODS = 3
_UNTOUCHED_SECONDS = 120
"""A scheduler that runs has looked at a pod in this time, whatever it finds, also where thousands are made at once."""
_SAYS_NOTHING = ("FailedScheduling", "WaitForFirstConsumer")
"""Reasons of Events that repeat what the pod's own status says, or that its claim waits for it."""


async def complaints_about(
    api: ApiServer, pods: Mapping[str, Manifest], record: Record, *, claims: Mapping[str, Manifest]
) -> dict[str, str]:
    """Find what Kubernetes says of pods that have been in the making for long, or of their claims, by the pod."""
    late = [pod for pod in pods.values() if _is_late(pod)][:_PODS]
    if not late:
        record.complaints.clear()
        return {}
    clock = asyncio.get_running_loop().time()
    told: dict[str, tuple[float, str | None]] = {}
    complaints: dict[str, str] = {}
    for pod in late:
        about, said = _about(pod, claims), None
        if about is not pod or _is_seen(pod):  # else nobody who would write Events has come to it
            uid = about["metadata"]["uid"]
            asked, said = record.complaints.get(uid, (None, None))
            if asked is None or clock - asked >= _AGAIN_SECONDS:
                asked, said = clock, await _ask(api, about, also_normal=about is not pod)
            told[uid] = (asked, said)
        if said := said or (None if _is_seen(pod) else _untouched(pod)):
            complaints[pod["metadata"]["name"]] = said
    record.complaints.clear()
    record.complaints.update(told)
    return complaints


def _is_late(pod: Manifest) -> bool:
    pending = (pod.get("status") or {}).get("phase") == "Pending"
    return pending and _age(pod) > _PATIENCE_SECONDS and read_pod(pod).being_made


def _age(pod: Manifest) -> float:
    created = unstamp(pod["metadata"].get("creationTimestamp"))
    return (datetime.now(UTC) - created).total_seconds() if created else 0.0


def _is_seen(pod: Manifest) -> bool:
    """Tell whether a scheduler, or a node, has looked at a pod."""
    return any(condition["type"] == "PodScheduled" for condition in pod["status"].get("conditions") or ())


def _untouched(pod: Manifest) -> str | None:
    """Tell that nobody has looked at a pod for long."""
    if _age(pod) <= _UNTOUCHED_SECONDS:
        return None
    spec = pod.get("spec") or {}
    if node := spec.get("nodeName"):
        return f"its node {node} has not taken it up: is there such a node?"
    return f"no scheduler has looked at it: does {spec.get('schedulerName', 'the scheduler')} run?"


def _about(pod: Manifest, claims: Mapping[str, Manifest]) -> Manifest:
    """Find whose Events tell: of a pod that no node has yet, its own claim's while that has no volume."""
    claim = None if (pod.get("spec") or {}).get("nodeName") else claims.get(pod["metadata"]["name"])
    return pod if claim is None or (claim.get("status") or {}).get("phase") == "Bound" else claim


async def _ask(api: ApiServer, about: Manifest, *, also_normal: bool) -> str | None:
    """Return the newest warning, or what else is said where that may do; None where nothing is, or nobody may read it.

    That a provisioner is waited for is no warning, and all that is ever said of one that does not run.
    """
    metadata = about["metadata"]
    selector = f"involvedObject.uid={metadata['uid']}" + ("" if also_normal else ",type=Warning")
    try:
        listed = await api.request(
            "GET",
            f"/api/v1/namespaces/{metadata['namespace']}/events",
            verb="list",
            resource="events",
            query=[("fieldSelector", selector), ("limit", "50")],
        )
    except ClusterError:
        return None
    events = [event for event in listed.get("items") or () if event.get("reason") not in _SAYS_NOTHING]
    newest = max(events, key=lambda event: (event.get("type") == "Warning", _when(event)), default=None)
    return f"{newest.get('reason')}: {newest.get('message')}" if newest else None


def _when(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
