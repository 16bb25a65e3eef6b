"""What a pod's status means for a task: is it ready, has it ended, and in Kubernetes' own words, what is wrong with it.

Messages must be steady: a text with a growing back-off in it would make a status write of every look at a broken pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from collective_operator.conditions import Reason, unstamp

_ERROR = "Error: "
"""Begins the last words of our programs."""

IMPORT_FAILED = 78
"""The exit status by which a learner says that its modules cannot be imported."""

_WAITING = {
    "ErrImagePull": Reason.IMAGE_UNAVAILABLE,
    "ImagePullBackOff": Reason.IMAGE_UNAVAILABLE,
    "ErrImageNeverPull": Reason.IMAGE_UNAVAILABLE,
    "InvalidImageName": Reason.IMAGE_UNAVAILABLE,
    "ImageInspectError": Reason.IMAGE_UNAVAILABLE,
    "RegistryUnavailable": Reason.IMAGE_UNAVAILABLE,
    "CreateContainerConfigError": Reason.CONTAINER_NOT_CREATED,
    "CreateContainerError": Reason.CONTAINER_NOT_CREATED,
    "RunContainerError": Reason.CONTAINER_NOT_CREATED,
    "CrashLoopBackOff": Reason.CRASHING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with a pod."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod, as far as a task cares."""

    name: str
    uid: str
    created: datetime | None
    terminating: bool
    """It was told to go and is not gone yet."""
    running: bool
    """Its program runs, as far as the kubelet knows."""
    ready: bool
    ended: bool
    """It will never run again: Failed (which is also how an eviction looks) or Succeeded."""
    restarts: int
    trouble: Trouble | None
    last_words: tuple[str, ...]
    """Termination messages, the newest first."""


def read_pod(manifest: Mapping[str, Any]) -> Pod:
    """Read a pod's manifest."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    container: Mapping[str, Any] = next(iter(status.get("containerStatuses") or ()), {})
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    phase = status.get("phase", "Pending")
    terminating = "deletionTimestamp" in metadata
    ended = phase in ("Failed", "Succeeded")
    ends = [
        state["terminated"]
        for state in (container.get("state") or {}, container.get("lastState") or {})
        if state.get("terminated")
    ]
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created=unstamp(metadata.get("creationTimestamp")),
        terminating=terminating,
        running=phase == "Running" and not terminating and not _stands_still(container),
        ready=conditions.get("Ready", {}).get("status") == "True" and phase == "Running" and not terminating,
        ended=ended,
        restarts=container.get("restartCount", 0),
        trouble=_trouble(metadata["name"], status, container, conditions, ends)
        if not terminating
        else Trouble(
            reason=Reason.POD_LOST,
            message=f"{metadata['name']}: is being deleted",
        ),
        last_words=tuple(end["message"] for end in ends if end.get("message")),
    )


def _stands_still(container: Mapping[str, Any]) -> bool:
    state = container.get("state") or {}
    return bool(state.get("waiting") or state.get("terminated"))


def _trouble(
    name: str,
    status: Mapping[str, Any],
    container: Mapping[str, Any],
    conditions: Mapping[str, Mapping[str, Any]],
    ends: list[Mapping[str, Any]],
) -> Trouble | None:
    found = (
        _lost(status, conditions)
        or _failed_import(conditions, ends)
        or _container_trouble(status, container, ends)
        or _unscheduled(status, conditions)
        or ((Reason.CRASHING, "ended as Failed") if status.get("phase") == "Failed" else None)
    )
    return Trouble(reason=found[0], message=f"{name}: {found[1]}") if found else None


def _lost(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Reason, str] | None:
    if status.get("reason") and status.get("phase") == "Failed":
        said = f": {status['message']}" if status.get("message") else ""
        return Reason.POD_LOST, f"{status['reason']}{said}"
    if status.get("reason") == "NodeLost" or conditions.get("Ready", {}).get("reason") == "NodeStatusUnknown":
        return Reason.POD_LOST, "its node does not answer"
    return None


def _failed_import(
    conditions: Mapping[str, Mapping[str, Any]], ends: list[Mapping[str, Any]]
) -> tuple[Reason, str] | None:
    """Tell why the last start failed to import, also while the next one is being tried."""
    if not ends or ends[0].get("exitCode") != IMPORT_FAILED or conditions.get("Ready", {}).get("status") == "True":
        return None
    lines = (ends[0].get("message") or "").strip().splitlines()
    # Where the log stands in for a message there are other lines before the error.
    begins = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    told = "\n".join(lines[begins[-1] :] if begins else lines).removeprefix(_ERROR)
    return Reason.IMPORT_FAILED, told or f"a module cannot be imported, exit code {IMPORT_FAILED}"


def _container_trouble(
    status: Mapping[str, Any], container: Mapping[str, Any], ends: list[Mapping[str, Any]]
) -> tuple[Reason, str] | None:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated")
    reason = _WAITING.get(waiting.get("reason", ""))
    if reason is Reason.CRASHING:
        return reason, ", ".join([waiting["reason"], *map(_exit, ends[:1])])
    if reason is not None:
        return reason, ": ".join(filter(None, [waiting["reason"], waiting.get("message")]))
    if ended and status.get("phase") != "Succeeded":
        return Reason.CRASHING, _exit(ended)
    return None


def _unscheduled(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> tuple[Reason, str] | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") != "False" or status.get("phase", "Pending") != "Pending":
        return None
    return Reason.UNSCHEDULABLE, ": ".join(
        filter(None, [scheduled.get("reason") or "Unschedulable", scheduled.get("message")])
    )


def _exit(ended: Mapping[str, Any]) -> str:
    code = f"exit code {ended.get('exitCode', 'unknown')}"
    return f"{ended['reason']}, {code}" if ended.get("reason") else code
