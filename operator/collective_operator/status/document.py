"""The whole status.

It holds the latest values only, is bounded, and comes out equal for two looks at an unchanged task, because every
difference is a write to the API server.  So a learner that trains and one that tests are both just Ready here, and
what nobody can say just now (a coordinator between two pods) stays as it was said last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from collective_operator import conditions
from collective_operator.conditions import Condition
from collective_operator.reasons import Reason, Type
from collective_operator.situation import Ending, Situation, Suspension
from collective_operator.status.judged import ended, first_few, judged
from collective_operator.status.learners import MESSAGE_LIMIT, counted, learner_statuses
from collective_operator.wording import shortened, stamp, unstamp

Status = dict[str, Any]

_STAYS = "still there: "
"""What a condition of a task that has ended says of pods begins so: nothing else of how it ended is ever taken back."""


def status_of(seen: Situation, ending: Ending | None) -> Status:
    """Build the whole status."""
    before, now = seen.before, seen.now
    status: Status = {
        "strategy": seen.task.spec.strategy.label,
        "observedGeneration": seen.task.generation,
        "conditions": conditions.written(judged(seen, ending), before=before, generation=seen.task.generation, now=now),
        "round": _round(seen),
        "learners": counted(seen, ending),
        "learnerStatuses": learner_statuses(seen, ending),
        "coordinator": _coordinator(seen),
        **_times(seen),
    }
    if seen.dashboard:
        status["dashboard"] = seen.dashboard
    if ending:
        status["completionTime"] = before.get("completionTime") or stamp(now)
    status |= _scores(seen, ending)
    return {"phase": conditions.phase(status), "reason": conditions.reason(status), **status}


def refused_status(*, before: Mapping[str, Any], generation: int, message: str, started: bool, now: datetime) -> Status:
    """Build the status of a task whose spec cannot be run.

    A task that never started has failed.  One that runs was valid once, so this operator is older than its CRD: it
    says so and leaves everything in place.
    """
    last = conditions.by_type(before)
    found = [Condition(Type.ACCEPTED, "False", Reason.INVALID_SPEC, message)]
    if started:
        found += [
            # What is not looked at cannot be told anew.
            Condition(Type.PROGRESSING, "Unknown", Reason.INVALID_SPEC),
            Condition(Type.COMPLETE, "False", Reason.NOT_FINISHED),
            Condition(Type.FAILED, "False", Reason.NOT_FINISHED),
        ]
    else:
        found += [
            Condition(kind, "False", Reason.INVALID_SPEC)
            for kind in (Type.LEARNERS_READY, Type.COORDINATOR_READY, Type.PROGRESSING)
        ]
        found += [
            Condition(Type.SUSPENDED, "False", Reason.NOT_SUSPENDED),
            Condition(Type.COMPLETE, "False", Reason.NOT_FINISHED),
            Condition(Type.FAILED, "True", Reason.INVALID_SPEC, message),
        ]
    written = {
        condition["type"]: condition
        for condition in conditions.written(found, before=before, generation=generation, now=now)
    }
    status: Status = {
        **before,
        "observedGeneration": generation,
        "conditions": [(last | written)[kind] for kind in Type if kind in last | written],
    }
    return status | {"phase": conditions.phase(status), "reason": str(Reason.INVALID_SPEC)}


def ended_unread(
    *,
    before: Mapping[str, Any],
    generation: int,
    message: str,
    ending: Ending,
    result: Mapping[str, Any] | None,
    now: datetime,
) -> Status:
    """Build the status of a task that has ended, and whose spec cannot be read: all that this takes is the ending."""
    found = [Condition(Type.ACCEPTED, "False", Reason.INVALID_SPEC, message), *ended(ending)]
    status: Status = {
        **before,
        "observedGeneration": generation,
        "conditions": conditions.written(found, before=before, generation=generation, now=now),
        "completionTime": stamp(now),
        **({"result": dict(result)} if result else {}),
    }
    if "learners" in before:
        status["learners"] = {**before["learners"], "ready": 0, "summary": f"0/{before['learners'].get('desired', 0)}"}
    return {**status, "phase": conditions.phase(status), "reason": conditions.reason(status)}


def looked_at(before: Mapping[str, Any], generation: int, *, kept: Mapping[Type, Iterable[str]]) -> Status:
    """Build the status of a task that has ended, and whose spec may have changed since: it speaks of that, too.

    Who waits for a condition waits for one that knows of the last change.

    Parameters
    ----------
    kept
        What keeps pods that are to go, by the condition that tells of them.
    """
    found = [{**condition, "observedGeneration": generation} for condition in before["conditions"]]
    for condition in found:
        told = first_few(kept.get(condition["type"], ()))
        if told or condition["message"].startswith(_STAYS):
            message = f"{_STAYS}{'; '.join(told)}" if told else ""
            condition["message"] = shortened(message, conditions.MESSAGE_LIMIT)
    return {**before, "observedGeneration": generation, "conditions": found}


def _times(seen: Situation) -> Status:
    """Tell when the task started, and how long it has stood still since, up to when that was over last."""
    before, goes_on = seen.before, seen.suspension is Suspension.NONE
    if "startTime" not in before:
        return {"startTime": stamp(seen.now)} if goes_on else {}
    stood = before.get("suspendedSeconds", 0)
    suspended = conditions.by_type(before).get(Type.SUSPENDED, {})
    stands = {Suspension.LINGERING: "Unknown", Suspension.DONE: "True"}.get(seen.suspension)
    stood_still = suspended.get("status") in ("True", "Unknown") and suspended["status"] != stands
    if stood_still and (since := unstamp(suspended["lastTransitionTime"])):
        stood += max(0, round((seen.now - since).total_seconds()))
    return {"startTime": before["startTime"], **({"suspendedSeconds": stood} if stood else {})}


def _round(seen: Situation) -> Status:
    last, total = seen.before.get("round", {}), seen.task.spec.rounds
    current, accepted = last.get("current", 0), last.get("accepted", 0)
    if seen.progress:
        current, accepted = seen.progress.round.current, seen.progress.round.accepted
    status: Status = {"current": current, "total": total, "accepted": accepted, "summary": f"{current}/{total}"}
    if current > last.get("current", 0):
        status["lastTime"] = stamp(seen.now)
    elif "lastTime" in last:
        status["lastTime"] = last["lastTime"]
    return status


def _coordinator(seen: Situation) -> Status:
    held = seen.attempts
    status: Status = {"uid": held.uid, "restarts": held.restarts, "attempts": held.count}
    if held.message:
        status["message"] = shortened(held.message, MESSAGE_LIMIT)
    return status


def _scores(seen: Situation, ending: Ending | None) -> Status:
    """Report the last proposal, and the score of the model that is held now."""
    status = {field: seen.before[field] for field in ("latest", "score", "result") if field in seen.before}
    said = seen.progress
    if said and said.latest:
        status["latest"] = said.latest.model_dump(by_alias=True, exclude_none=True)
        # Between two looks many rounds may be decided: of what was accepted there, no proposal tells.
        held = said.score if said.score is not None or not said.latest.accepted else said.latest.test_score
        if held is not None:
            status["score"] = held
    if ending and said and said.result:
        status["result"] = said.result.model_dump(by_alias=True, exclude_none=True)
        if said.result.test_score is not None:
            status["score"] = said.result.test_score
    return status
