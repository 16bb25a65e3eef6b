"""What a pod's status means for a task: is it ready, has it ended, what did it leave, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from collective_operator.pod_troubles import (
    complained_of,
    ends_of,
    exit_words,
    holds,
    own_container,
    steady,
    waits_for_volume,
    what_is_wrong,
)
from collective_operator.reasons import Reason
from collective_operator.wording import unstamp

_OVERDUE = timedelta(minutes=1)
"""After a pod should have been killed: no kubelet that lives takes as long to say that it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with a pod."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """The termination message of a container."""

    text: str
    ended_well: bool
    """Else it may be the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod, as far as a task cares."""

    name: str
    uid: str
    created: datetime | None
    leaves_by: datetime | None
    """It was told to go, is not gone yet, and is killed at this time; None when nobody told it."""
    running: bool
    """Its program runs, as far as the kubelet knows."""
    ready: bool
    ended: bool
    """It will never run again: Failed (which is also how an eviction looks) or Succeeded."""
    restarts: int
    """Of its program; and of what must end well before that begins."""
    trouble: Trouble | None
    last_end: str
    """How its program ended last, also when all is well again; empty when it has not."""
    placed: bool
    """Its containers were started on a node, which has its volumes."""
    being_made: bool
    """It says of nothing that it is wrong, and its containers were not started yet; or it waits for its volume."""
    last_words: tuple[LastWords, ...]
    """The newest first."""

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether it should be gone for long: its node does not answer, or a finalizer keeps it."""
        return self.leaves_by is not None and now >= self.leaves_by + _OVERDUE

    @property
    def terminating(self) -> bool:
        """Whether it was told to go."""
        return self.leaves_by is not None


def overdue_in(pods: Iterable[Pod], now: datetime) -> float | None:
    """Return the seconds until the next of those that were told to go is overdue; None where there is none."""
    leave_by = [pod.leaves_by for pod in pods if pod.leaves_by and not pod.is_overdue(now)]
    return (min(leave_by) + _OVERDUE - now).total_seconds() if leave_by else None


def read_pod(manifest: Mapping[str, Any], *, complaint: str | None = None) -> Pod:
    """Read a pod's manifest.

    Parameters
    ----------
    manifest
        The pod.
    complaint
        What Kubernetes says in an Event of a pod whose status says nothing.
    """
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    container = own_container(manifest)
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    phase = status.get("phase", "Pending")
    terminating = "deletionTimestamp" in metadata
    ends = ends_of(container)
    found = what_is_wrong(manifest, conditions)
    being_made = waits_for_volume(found) or (phase == "Pending" and not found)
    if found and waits_for_volume(found) and complaint:
        found = found[0], f"{found[1]}: {complaint}"
    found = found or complained_of(complaint, conditions)
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created=unstamp(metadata.get("creationTimestamp")),
        leaves_by=unstamp(metadata["deletionTimestamp"]) if terminating else None,
        running=phase == "Running" and not terminating and not _stands_still(container),
        ready=holds(conditions, "Ready") and phase == "Running" and not terminating,
        ended=phase in ("Failed", "Succeeded"),
        restarts=container.get("restartCount", 0) + _failed_beginnings(status, conditions),
        trouble=Trouble(reason=found[0], message=f"{metadata['name']}: {steady(found[1])}") if found else None,
        last_end=f"{metadata['name']}: restarted after {steady(exit_words(ends[0]))}" if ends else "",
        placed=phase == "Running",
        being_made=being_made,
        last_words=tuple(
            LastWords(text=end["message"], ended_well=end.get("exitCode") == 0) for end in ends if end.get("message")
        ),
    )


def _failed_beginnings(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> int:
    """Count how often the init containers of a pod that has not got past them were started again."""
    if conditions.get("Initialized", {}).get("status") != "False":
        return 0
    return sum(container.get("restartCount", 0) for container in status.get("initContainerStatuses") or ())


def _stands_still(container: Mapping[str, Any]) -> bool:
    state = container.get("state") or {}
    return bool(state.get("waiting") or state.get("terminated"))
