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
from collective_operator.conditions import unstamp
from collective_operator.pods import read_pod

_PATIENCE_SECONDS = 45
"""Images are pulled and volumes attached in this time, where all is well and the image is not large."""
_AGAIN_SECONDS = 60
_PODS = 3
_UNTOUCHED_SECONDS = 120
"""A scheduler that runs has looked at a pod in this time, whatever it finds, also where thousands are made at once."""


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
    for pod in late:
        uid = pod["metadata"]["uid"]
        if not _is_seen(pod):
            # Nobody who would write Events has come to it.
            told[uid] = (float("-inf"), _untouched(pod))
            continue
        asked, said = record.complaints.get(uid, (None, None))
        told[uid] = (
            (asked, said)
            if asked is not None and clock - asked < _AGAIN_SECONDS
            else (clock, await _ask(api, _about(pod, claims)))
        )
    record.complaints.clear()
    record.complaints.update(told)
    return {pod["metadata"]["name"]: said for pod in late if (said := told[pod["metadata"]["uid"]][1])}


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
    """Find whose Events tell: of a pod that no node has yet, its own claim's."""
    placed = (pod.get("spec") or {}).get("nodeName")
    return pod if placed else claims.get(pod["metadata"]["name"], pod)


async def _ask(api: ApiServer, about: Manifest) -> str | None:
    """Return the newest warning; None where there is none, or where nobody may read Events."""
    metadata = about["metadata"]
    selector = f"involvedObject.uid={metadata['uid']},type=Warning"
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
    warnings = [event for event in listed.get("items") or () if event.get("reason") != "FailedScheduling"]
    newest = max(warnings, key=_when, default=None)
    return f"{newest.get('reason')}: {newest.get('message')}" if newest else None


def _when(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
