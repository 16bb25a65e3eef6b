"""The status of a task: what `kubectl get ctask` prints and scripts read.

It holds the latest values only, is bounded, and comes out equal for two looks at an unchanged task, because every
difference is a write to the API server.  So a learner that trains and one that tests are both just Ready here, and
what nobody can say just now (a coordinator between two pods) stays as it was said last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from collective_operator import conditions
from collective_operator.conditions import Condition, Reason, Type, shortened, stamp
from collective_operator.desired.names import LEARNER
from collective_operator.pods import Pod
from collective_operator.progress import LearnerSaid
from collective_operator.situation import Ending, Situation

Status = dict[str, Any]

_TOLD_STATES = ("Connecting", "SettingUp", "Lost")
_FIRST = (
    Reason.IMPORT_FAILED,
    Reason.CODE_MISSING,
    Reason.CREATE_REFUSED,
    Reason.IMAGE_UNAVAILABLE,
    Reason.CONTAINER_NOT_CREATED,
    Reason.CRASHING,
    Reason.UNSCHEDULABLE,
    Reason.POD_LOST,
)
"""Of several troubles, the one that is told: the least likely to go away by itself comes first."""

_NAMED = 3
_UNKNOWN = "unknown"
"""The uid of a pod that was asked for and not seen yet."""
_LEARNER_MESSAGE_LIMIT = 256


def status_of(seen: Situation, ending: Ending | None) -> Status:
    """Build the whole status."""
    before, now = seen.before, seen.now
    status: Status = {
        "strategy": seen.task.spec.strategy.label,
        "observedGeneration": seen.task.generation,
        "startTime": before.get("startTime") or stamp(now),
        "conditions": conditions.written(
            _conditions(seen, ending), before=before, generation=seen.task.generation, now=now
        ),
        "round": _round(seen),
        "learners": _learners(seen, ending),
        "learnerStatuses": _learner_statuses(seen, ending),
        "coordinator": _coordinator(seen),
    }
    if ending:
        status["completionTime"] = before.get("completionTime") or stamp(now)
    status |= _scores(seen, ending)
    return {"phase": conditions.phase(status), "reason": conditions.reason(status), **status}


def refused_status(*, before: Mapping[str, Any], generation: int, message: str, started: bool, now: Any) -> Status:
    """Build the status of a task whose spec cannot be run.

    A task that never started has failed.  One that runs was valid once, so this operator is older than its CRD: it
    says so and leaves everything in place.
    """
    found = [
        Condition(Type.ACCEPTED, "False", Reason.INVALID_SPEC, message),
        Condition(Type.PROGRESSING, "False", Reason.INVALID_SPEC),
        Condition(Type.COMPLETE, "False", Reason.NOT_FINISHED),
        Condition(Type.FAILED, "False", Reason.NOT_FINISHED)
        if started
        else Condition(Type.FAILED, "True", Reason.INVALID_SPEC, message),
    ]
    status: Status = {
        **before,
        "observedGeneration": generation,
        "conditions": conditions.written(found, before=before, generation=generation, now=now),
    }
    return status | {"phase": conditions.phase(status), "reason": str(Reason.INVALID_SPEC)}


def _conditions(seen: Situation, ending: Ending | None) -> Iterator[Condition]:
    yield Condition(Type.ACCEPTED, "True", Reason.ACCEPTED, "the spec is valid")
    if ending:
        for kind in (Type.LEARNERS_READY, Type.COORDINATOR_READY, Type.PROGRESSING):
            yield Condition(kind, "False", Reason.FINISHED)
        for kind, holds in ((Type.COMPLETE, ending.complete), (Type.FAILED, not ending.complete)):
            yield Condition(
                kind,
                "True" if holds else "False",
                ending.reason if holds else Reason.FINISHED,
                ending.message if holds else "",
            )
        return
    yield _learners_ready(seen)
    yield _coordinator_ready(seen)
    yield _progressing(seen)
    yield Condition(Type.COMPLETE, "False", Reason.NOT_FINISHED)
    yield Condition(Type.FAILED, "False", Reason.NOT_FINISHED)


def _learners_ready(seen: Situation) -> Condition:
    count, ready = len(seen.learners), seen.ready_learners
    troubles = [trouble for index in range(count) if (trouble := seen.learner_trouble(index))]
    troubles.sort(key=lambda trouble: _FIRST.index(trouble.reason))
    told = [*dict.fromkeys(trouble.message for trouble in troubles)]
    message = "; ".join([f"{ready} of {count} ready", *told[:_NAMED]])
    if len(told) > _NAMED:
        message += f"; and {len(told) - _NAMED} more"
    if ready == count:
        return Condition(Type.LEARNERS_READY, "True", Reason.ALL_READY, message)
    if ready >= seen.task.min_learners:
        return Condition(Type.LEARNERS_READY, "True", Reason.QUORUM_READY, message)
    return Condition(Type.LEARNERS_READY, "False", troubles[0].reason if troubles else Reason.STARTING, message)


def _coordinator_ready(seen: Situation) -> Condition:
    pod, trouble = seen.coordinator, seen.coordinator_trouble
    if pod and pod.ready:
        return Condition(Type.COORDINATOR_READY, "True", Reason.SERVING, f"{pod.name} is ready")
    if trouble:
        return Condition(Type.COORDINATOR_READY, "False", trouble.reason, trouble.message)
    return Condition(Type.COORDINATOR_READY, "False", Reason.STARTING, "its pod is starting")


def _progressing(seen: Situation) -> Condition:
    running = Condition(Type.PROGRESSING, "True", Reason.ROUNDS_RUNNING, "the coordinator drives the rounds")
    pod, said = seen.coordinator, seen.progress
    if said:
        if said.phase == "Running":
            return running
        missing = [learner.name for learner in said.learners if learner.state in _TOLD_STATES]
        names = f": {', '.join(missing[:8])}" if missing else ""
        return Condition(
            Type.PROGRESSING, "False", Reason.WAITING_FOR_LEARNERS, f"the coordinator waits for learners{names}"
        )
    if not (pod and pod.ready):
        return Condition(Type.PROGRESSING, "False", Reason.WAITING_FOR_COORDINATOR)
    # One answer that did not come is no news of rounds that ran a moment ago: the kubelet says that it is well.
    if conditions.is_true(seen.before, Type.PROGRESSING):
        return running
    return Condition(
        Type.PROGRESSING, "False", Reason.COORDINATOR_SILENT, f"{pod.name} is ready and does not answer the operator"
    )


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


def _learners(seen: Situation, ending: Ending | None) -> Status:
    count = len(seen.learners)
    ready = 0 if ending else seen.ready_learners
    failed = sum(1 for index in range(count) if seen.learner_trouble(index))
    return {"desired": count, "ready": ready, "failed": failed, "summary": f"{ready}/{count}"}


def _learner_statuses(seen: Situation, ending: Ending | None) -> list[Status]:
    said = {learner.name: learner for learner in seen.progress.learners} if seen.progress else {}
    last = {learner["name"]: learner for learner in seen.before.get("learnerStatuses", ())}
    named = [(index, f"{LEARNER}-{index}") for index in range(len(seen.learners))]
    return [_learner(seen, index, ending, said=said.get(name), last=last.get(name, {})) for index, name in named]


def _learner(
    seen: Situation, index: int, ending: Ending | None, *, said: LearnerSaid | None, last: Mapping[str, Any]
) -> Status:
    name, pod, trouble = f"{LEARNER}-{index}", seen.learners[index], seen.learner_trouble(index)
    status: Status = {"name": name, "restarts": pod.restarts if pod else last.get("restarts", 0)}
    if trouble:
        status["state"] = str(trouble.reason)
    elif ending:
        status["state"] = "Finished"
    else:
        status["state"] = _learner_state(pod, said)
    score = said.last_score if said else last.get("lastScore")
    if score is not None:
        status["lastScore"] = score
    if said and said.privacy:
        status["privacy"] = said.privacy.model_dump(by_alias=True, exclude_none=True)
    elif "privacy" in last:
        status["privacy"] = last["privacy"]
    message = trouble.message if trouble else said.message if said else ""
    if message:
        status["message"] = shortened(message, _LEARNER_MESSAGE_LIMIT)
    return status


def _learner_state(pod: Pod | None, said: LearnerSaid | None) -> str:
    if pod is None:
        return "Missing"
    if not pod.ready and not pod.running:
        return "Pending"
    if said and said.state in _TOLD_STATES:
        return said.state
    return "Ready" if pod.ready else "Starting"


def _coordinator(seen: Situation) -> Status:
    """Count what went wrong since the last decided round: a coordinator that gets nowhere must not go on for ever.

    Each pod that vanished is an attempt, whoever made it vanish, and so is each restart of a container.  A pod that is
    being created counts before its uid is known, so that one which is lost at once is not made again for nothing.
    """
    last: Mapping[str, Any] = seen.before.get("coordinator", {})
    pod, trouble = seen.coordinator, seen.coordinator_trouble
    attempts, restarts, uid = last.get("attempts", 0), last.get("restarts", 0), last.get("uid", "")
    message = last.get("message", "")
    if pod and pod.uid == uid:
        attempts += max(0, pod.restarts - restarts)
    elif pod:
        attempts += pod.restarts + (1 if uid not in ("", _UNKNOWN) else 0)
    elif conditions.is_true(seen.before, Type.ACCEPTED) and not trouble:
        if uid:
            attempts, message = attempts + 1, message or "its pod is gone"
        uid = _UNKNOWN
    if pod:
        uid, restarts = pod.uid, pod.restarts
    if seen.progress and seen.progress.round.current > seen.before.get("round", {}).get("current", 0):
        attempts, message = 0, ""
    if trouble:
        message = shortened(trouble.message, _LEARNER_MESSAGE_LIMIT)
    return {"uid": uid, "restarts": restarts, "attempts": attempts, **({"message": message} if message else {})}


def _scores(seen: Situation, ending: Ending | None) -> Status:
    """Report the last proposal, and the score of the model that is held now."""
    status = {field: seen.before[field] for field in ("latest", "score", "result") if field in seen.before}
    said = seen.progress
    if said and said.latest:
        status["latest"] = said.latest.model_dump(by_alias=True, exclude_none=True)
        if said.latest.accepted and said.latest.test_score is not None:
            status["score"] = said.latest.test_score
    if ending and said and said.result:
        status["result"] = said.result.model_dump(by_alias=True, exclude_none=True)
        if said.result.test_score is not None:
            status["score"] = said.result.test_score
    return status
