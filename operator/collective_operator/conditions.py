"""The conditions of a task: the truth in its status, of which the phase is only a summary for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from collective_operator.cluster.protocol import TaskEvent
from collective_operator.reasons import QUIET, TROUBLE, Reason, Type
from collective_operator.wording import shortened, stamp, unstamp

MESSAGE_LIMIT = 1000
_AHEAD = timedelta(minutes=1)
"""By how much the clocks of two operators may differ."""


State = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, before it has a time."""

    type: Type
    status: State
    reason: str
    message: str = ""


def not_ahead(status: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Read a status that an operator may have written while its clock was ahead: what has not been yet is now.

    Else what is counted from such a time would not end before its clock is right.
    """
    read = dict(status)
    if _is_ahead(read.get("startTime"), now):
        read["startTime"] = stamp(now)
    if "conditions" in read:
        read["conditions"] = [
            {**found, "lastTransitionTime": stamp(now)} if _is_ahead(found["lastTransitionTime"], now) else found
            for found in read["conditions"]
        ]
    return read


def _is_ahead(text: str | None, now: datetime) -> bool:
    time = unstamp(text)
    return time is not None and time - now > _AHEAD


def by_type(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Index the conditions of a status."""
    return {condition["type"]: condition for condition in status.get("conditions", ())}


def is_true(status: Mapping[str, Any], kind: Type) -> bool:
    """Tell whether a status has this condition and it holds."""
    return by_type(status).get(kind, {}).get("status") == "True"


def ending(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the condition that tells how a task ended; None while it goes on."""
    kinds = (kind for kind in (Type.COMPLETE, Type.FAILED) if is_true(status, kind))
    return next((by_type(status)[kind] for kind in kinds), None)


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
    """Yield an event for each reason that conditions have come to, and that is worth telling.

    Once, where one cause has moved several of them.
    """
    old = by_type(before)
    events: dict[str, TaskEvent] = {}
    for kind, condition in by_type(after).items():
        last, reason = old.get(kind, {}), condition["reason"]
        told = (last.get("status"), last.get("reason")) == (condition["status"], reason)
        if told or reason in QUIET or (reason in events and not condition["message"]):
            continue
        worrying = reason in (*TROUBLE, Reason.TLS_OFF) or kind == Type.FAILED
        events[reason] = TaskEvent(
            type="Warning" if worrying else "Normal", reason=reason, message=condition["message"] or kind
        )
    yield from events.values()


def phase(status: Mapping[str, Any]) -> str:
    """Sum the conditions up in one word."""
    if is_true(status, Type.COMPLETE) or is_true(status, Type.FAILED):
        return "Complete" if is_true(status, Type.COMPLETE) else "Failed"
    if not is_true(status, Type.ACCEPTED):
        return "Pending"
    if suspension := _suspension(status):
        return suspension
    if is_true(status, Type.PROGRESSING):
        return "Running"
    starting = is_true(status, Type.LEARNERS_READY) or is_true(status, Type.COORDINATOR_READY)
    return "Starting" if starting else "Pending"


def reason(status: Mapping[str, Any]) -> str:
    """Name the reason of what the phase says: how it ended, or else what it waits for."""
    conditions = by_type(status)
    if ended := ending(status):
        return str(ended["reason"])
    for kind in (Type.ACCEPTED, Type.COORDINATOR_READY, Type.LEARNERS_READY):
        if conditions.get(kind, {}).get("reason") in TROUBLE | {Reason.SCHEDULING_GATED}:
            return str(conditions[kind]["reason"])
    return _suspension(status) or str(conditions[Type.PROGRESSING]["reason"])


def _suspension(status: Mapping[str, Any]) -> str | None:
    """Tell how far a task that stands still, or is to, has got with it."""
    found = by_type(status).get(Type.SUSPENDED, {}).get("reason")
    return str(found) if found in (Reason.SUSPENDED, Reason.SUSPENDING) else None
