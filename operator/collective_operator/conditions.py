"""The conditions of a task: the truth in its status, of which the phase is only a summary for people.

Types and reasons are closed sets, so that scripts and alerts can rely on them.  One reason stands outside: a
coordinator's verdict brings its own word for how the task ended (``BelowQuorum``, ``SetupRefused``, ...), and that word
is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from collective_operator.cluster.protocol import TaskEvent

MESSAGE_LIMIT = 1000
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")


class Type(StrEnum):
    """What a condition is about."""

    ACCEPTED = "Accepted"
    """The spec is valid, and this operator runs it."""
    LEARNERS_READY = "LearnersReady"
    """As many learner pods are ready as a round needs."""
    COORDINATOR_READY = "CoordinatorReady"
    """The coordinator's pod is ready."""
    PROGRESSING = "Progressing"
    """Rounds are being driven now."""
    COMPLETE = "Complete"
    """All is done; nothing changes any more."""
    FAILED = "Failed"
    """It is over without success; nothing changes any more."""


class Reason(StrEnum):
    """Why a condition is what it is; also the reasons of Events."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"

    ALL_READY = "AllReady"
    QUORUM_READY = "QuorumReady"
    """Some learners are missing, and the rest is enough."""
    SERVING = "Serving"
    STARTING = "Starting"
    """Nothing is wrong, it takes its time."""
    UNSCHEDULABLE = "Unschedulable"
    """No node takes the pod."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    """The node cannot make the container: a missing volume, Secret or ConfigMap."""
    CRASHING = "Crashing"
    """The program ends when it should not."""
    IMPORT_FAILED = "ImportFailed"
    """A learner's modules cannot be imported: another start cannot help."""
    CODE_MISSING = "CodeMissing"
    """The ConfigMap that spec.learners.codeFrom names is not there."""
    POD_LOST = "PodLost"
    """The pod was evicted, its node is gone, or somebody deleted it."""
    CREATE_REFUSED = "CreateRefused"
    """The API server does not let the child be created: a quota, a policy, a name taken by something else."""

    ROUNDS_RUNNING = "RoundsRunning"
    WAITING_FOR_LEARNERS = "WaitingForLearners"
    WAITING_FOR_COORDINATOR = "WaitingForCoordinator"
    COORDINATOR_SILENT = "CoordinatorSilent"
    """Its pod is ready, and the operator does not reach it: look for a NetworkPolicy."""

    NOT_FINISHED = "NotFinished"
    FINISHED = "Finished"
    COMPLETED = "Completed"
    PRE_RUNNING_DEADLINE = "PreRunningDeadlineExceeded"
    ACTIVE_DEADLINE = "ActiveDeadlineExceeded"
    COORDINATOR_FAILED = "CoordinatorFailed"

    RECONFIGURED = "Reconfigured"
    """Event only: the coordinator's configuration was written anew while the task runs."""
    REMOVED = "Removed"
    """Event only: a learner's pod went, because the task has fewer learners now."""
    REPLACED = "Replaced"
    """Event only: a pod that was lost or had ended is made anew."""


TROUBLE = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_UNAVAILABLE,
        Reason.CONTAINER_NOT_CREATED,
        Reason.CRASHING,
        Reason.IMPORT_FAILED,
        Reason.CODE_MISSING,
        Reason.POD_LOST,
        Reason.CREATE_REFUSED,
        Reason.COORDINATOR_SILENT,
    }
)
"""Reasons that somebody should look at."""

_QUIET = frozenset(
    {
        Reason.NOT_FINISHED,
        Reason.FINISHED,
        Reason.STARTING,
        Reason.WAITING_FOR_LEARNERS,
        Reason.WAITING_FOR_COORDINATOR,
    }
)

State = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, before it has a time."""

    type: Type
    status: State
    reason: str
    message: str = ""


def reason_of_verdict(word: str, *, otherwise: Reason) -> str:
    """Take a coordinator's own reason when it is one."""
    return word if _REASON.fullmatch(word) else otherwise


def stamp(now: datetime) -> str:
    """Write a time as Kubernetes does."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unstamp(text: str | None) -> datetime | None:
    """Read a time as Kubernetes writes it; None when there is none."""
    return datetime.fromisoformat(text) if text else None


def by_type(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Index the conditions of a status."""
    return {condition["type"]: condition for condition in status.get("conditions", ())}


def is_true(status: Mapping[str, Any], kind: Type) -> bool:
    """Tell whether a status has this condition and it holds."""
    return by_type(status).get(kind, {}).get("status") == "True"


def written(
    conditions: Iterable[Condition], *, before: Mapping[str, Any], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Write conditions down; the time of one moves only when its status does."""
    old = by_type(before)
    result = []
    for condition in conditions:
        last = old.get(condition.type, {})
        same = last.get("status") == condition.status
        result.append(
            {
                "type": str(condition.type),
                "status": condition.status,
                "reason": str(condition.reason),
                "message": shortened(condition.message, MESSAGE_LIMIT),
                "observedGeneration": generation,
                "lastTransitionTime": last["lastTransitionTime"] if same else stamp(now),
            }
        )
    return result


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[TaskEvent]:
    """Yield an event for each condition whose status or reason became worth telling."""
    old = by_type(before)
    for kind, condition in by_type(after).items():
        last = old.get(kind, {})
        told = (last.get("status"), last.get("reason")) == (condition["status"], condition["reason"])
        if told or condition["reason"] in _QUIET:
            continue
        worrying = condition["reason"] in TROUBLE or kind == Type.FAILED
        yield TaskEvent(
            type="Warning" if worrying else "Normal",
            reason=condition["reason"],
            message=condition["message"] or kind,
        )


def phase(status: Mapping[str, Any]) -> str:
    """Sum the conditions up in one word."""
    if is_true(status, Type.COMPLETE):
        return "Complete"
    if is_true(status, Type.FAILED):
        return "Failed"
    if not is_true(status, Type.ACCEPTED):
        return "Pending"
    if is_true(status, Type.PROGRESSING):
        return "Running"
    if is_true(status, Type.LEARNERS_READY) or is_true(status, Type.COORDINATOR_READY):
        return "Starting"
    return "Pending"


def reason(status: Mapping[str, Any]) -> str:
    """Name the reason of what the phase says: how it ended, or else what it waits for."""
    conditions = by_type(status)
    for kind in (Type.COMPLETE, Type.FAILED):
        if is_true(status, kind):
            return str(conditions[kind]["reason"])
    for kind in (Type.ACCEPTED, Type.COORDINATOR_READY, Type.LEARNERS_READY):
        if conditions.get(kind, {}).get("reason") in TROUBLE:
            return str(conditions[kind]["reason"])
    return str(conditions[Type.PROGRESSING]["reason"])


def shortened(text: str, limit: int) -> str:
    """Cut a text to a bound, visibly."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
