"""The learners in a task's status: counted, and one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator.desired.names import LEARNER
from collective_operator.pods import Pod
from collective_operator.progress import LearnerSaid
from collective_operator.reasons import Reason
from collective_operator.situation import MISSING, Ending, Situation, Suspension
from collective_operator.status.judged import TOLD_STATES
from collective_operator.wording import shortened

Status = dict[str, Any]

MESSAGE_LIMIT = 256


def counted(seen: Situation, ending: Ending | None) -> Status:
    """Count the learners."""
    count, stands = len(seen.learners), seen.suspension is not Suspension.NONE
    ready = 0 if ending or stands or seen.learners_done else seen.ready_learners
    troubles = [] if stands else [seen.learner_trouble(index) for index in range(count)]
    # Of one that waits in a queue nothing is wrong.
    failed = sum(trouble is not None and trouble.reason is not Reason.SCHEDULING_GATED for trouble in troubles)
    return {"desired": count, "ready": ready, "failed": failed, "summary": f"{ready}/{count}"}


def learner_statuses(seen: Situation, ending: Ending | None) -> list[Status]:
    """Tell of each learner."""
    said = {learner.name: learner for learner in seen.progress.learners} if seen.progress else {}
    return [_learner(seen, index, ending, said=said.get(f"{LEARNER}-{index}")) for index in range(len(seen.learners))]


def _learner(seen: Situation, index: int, ending: Ending | None, *, said: LearnerSaid | None) -> Status:
    last = seen.learner_before(index)
    status: Status = {"name": f"{LEARNER}-{index}"}
    if seen.suspension is Suspension.NONE or ending:
        status |= _with_pod(seen, index, ending, said=said, last=last)
    else:
        status |= {"restarts": 0, "state": str(Reason.SUSPENDED)}
    score = said.last_score if said else last.get("lastScore")
    if score is not None:
        status["lastScore"] = score
    if said and said.privacy:
        status["privacy"] = said.privacy.model_dump(by_alias=True, exclude_none=True)
    elif "privacy" in last:
        status["privacy"] = last["privacy"]
    return status


def _with_pod(
    seen: Situation, index: int, ending: Ending | None, *, said: LearnerSaid | None, last: Mapping[str, Any]
) -> Status:
    pod, trouble, failures = seen.learners[index], seen.learner_trouble(index), seen.failures[index]
    status: Status = {"restarts": pod.restarts if pod else last.get("restarts", 0)}
    if trouble:
        status["state"] = str(trouble.reason)
    elif ending or seen.learners_done:
        status["state"] = "Finished"
    else:
        status["state"] = _state(pod, said)
    message = trouble.message if trouble else said.message if said else ""
    if message:
        status["message"] = shortened(message, MESSAGE_LIMIT)
    if failures.count:
        status["failures"] = {"count": failures.count, "pod": failures.pod, "round": failures.round}
    return status


def _state(pod: Pod | None, said: LearnerSaid | None) -> str:
    if pod is None:
        return MISSING
    if not pod.ready and not pod.running:
        return "Pending"
    if said and said.state in TOLD_STATES:
        return said.state
    return "Ready" if pod.ready else "Starting"
