"""Is it over?  By the coordinator's verdict, by what cannot be made good, or by a bound that was reached.

Every way in which a task can get stuck has its bound here or in the coordinator, which docs/conditions.md adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from collective_operator import conditions
from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.progress import Progress
from collective_operator.reasons import Reason, Type, reason_of_verdict
from collective_operator.situation import Ending, Situation, Suspension
from collective_operator.status.judged import learner_troubles, told
from collective_operator.wording import unstamp

_COORDINATOR_MARGIN_SECONDS = 30


def ending_of(seen: Situation, status: Mapping[str, Any]) -> Ending | None:
    """Find out whether a task is over.

    Parameters
    ----------
    seen
        The task.
    status
        Its status if it is not.
    """
    if seen.verdict:
        return _judged_by_coordinator(seen, seen.verdict)
    if ended := by_hand(seen.task) or _lost_volume(seen):
        return ended
    if seen.suspension is not Suspension.NONE:
        return None
    progressing = conditions.is_true(status, Type.PROGRESSING)
    if seen.failed_import and not progressing:  # rounds that run can do without one that comes back broken
        return _failed(Reason.IMPORT_FAILED, seen.failed_import.message)
    attempts = seen.attempts
    if attempts.count > seen.task.spec.policy.backoff.limit:
        return _failed(
            Reason.COORDINATOR_FAILED,
            f"the coordinator ended or was lost {attempts.count} times without deciding a round; last: "
            f"{attempts.message or 'its container restarted'}",
        )
    return _too_few_left(seen) or _too_late(seen, status)


def deadlines(seen: Situation, status: Mapping[str, Any]) -> Iterator[tuple[Reason, float]]:
    """Yield each deadline that applies now and the seconds left until it; none does while the task stands still."""
    if seen.suspension is not Suspension.NONE:
        return
    policy, found = seen.task.spec.policy, conditions.by_type(status)
    if policy.active_deadline_seconds is not None:
        limit = policy.active_deadline_seconds + status.get("suspendedSeconds", 0)
        yield Reason.ACTIVE_DEADLINE, seconds_left(status["startTime"], limit, seen.now)
    progressing = found[Type.PROGRESSING]
    # A coordinator that nobody reaches may be driving rounds: it and its kubelet have bounds of their own.
    unheard = seen.coordinator is not None and seen.coordinator.ready and seen.progress is None
    if progressing["status"] == "True" or unheard:
        return
    # A coordinator that waits has the same deadline, from its own start, and knows who is missing: it speaks first.
    limit = policy.pre_running_deadline_seconds
    if seen.progress:
        limit = 2 * limit + _COORDINATOR_MARGIN_SECONDS
    # A task that goes on has not progressed since it was suspended, nor one whose spec was mended since it was refused:
    # its time begins when it goes on.
    times = (progressing["lastTransitionTime"], found[Type.SUSPENDED]["lastTransitionTime"], status["startTime"])
    waits_since = max(times)
    yield Reason.PRE_RUNNING_DEADLINE, seconds_left(waits_since, limit, seen.now)


def seconds_left(since: str, seconds: float, now: datetime) -> float:
    """Return how many of these seconds are left."""
    start = unstamp(since) or now
    return (start - now).total_seconds() + seconds


def _failed(reason: Reason, message: str) -> Ending:
    return Ending(complete=False, reason=reason, message=message)


def by_verdict(verdict: Progress) -> Ending:
    """Take the coordinator's word."""
    complete = verdict.phase == "Complete"
    return Ending(
        complete=complete, reason=reason_of_verdict(verdict.reason, complete=complete), message=verdict.message
    )


def by_hand(task: CollectiveTask) -> Ending | None:
    """Take the word of somebody who ends a task, where there is one."""
    return None if task.abort is None else _failed(Reason.ABORTED, task.abort or "somebody has ended the task")


def _judged_by_coordinator(seen: Situation, verdict: Progress) -> Ending:
    """Add to the coordinator's word what it cannot know: why Kubernetes does not run a learner."""
    ending = by_verdict(verdict)
    if ending.reason is not Reason.BELOW_QUORUM:
        return ending
    return replace(ending, message="; ".join([ending.message, *told(learner_troubles(seen))]))


def _lost_volume(seen: Situation) -> Ending | None:
    """Tell that the rounds that were decided are gone: a new volume would begin again, and nobody would know.

    As long as the coordinator's containers are on a node they have the volume, whatever became of the claim.
    """
    pod, claim = seen.coordinator, seen.claim
    if not seen.decided_before or (pod and pod.placed and not pod.ended and not pod.terminating):
        return None
    if claim is None:
        became = "is gone, or is not this task's any more"
    elif "deletionTimestamp" in claim["metadata"]:
        became = "is being deleted"
    elif (claim.get("status") or {}).get("phase") == "Lost":
        became = "has lost its volume"
    else:
        return None
    name = names.coordinator(seen.task.name)
    lost = f"the volume claim {name} {became}, and with it all that was decided up to round {seen.decided_before}"
    return _failed(Reason.VOLUME_LOST, lost)


def _too_few_left(seen: Situation) -> Ending | None:
    """Tell that so many learners were given up that no round can be decided any more."""
    count = len(seen.learners)
    given_up = [index for index in range(count) if seen.given_up(index)]
    if count - len(given_up) >= seen.task.min_learners:
        return None
    causes = [trouble for index in given_up if (trouble := seen.learner_trouble(index))]
    return _failed(Reason.BACKOFF_EXCEEDED, "; ".join(told(causes)))


def _too_late(seen: Situation, status: Mapping[str, Any]) -> Ending | None:
    policy = seen.task.spec.policy
    for reason, left in deadlines(seen, status):
        if left > 0:
            continue
        late = f"no round ran for {policy.pre_running_deadline_seconds} s or more"
        if reason is Reason.ACTIVE_DEADLINE:
            late = f"the task did not end within {policy.active_deadline_seconds} s"
        found = conditions.by_type(status)
        learners, coordinator = (found[kind]["message"] for kind in (Type.LEARNERS_READY, Type.COORDINATOR_READY))
        return _failed(reason, f"{late}; learners: {learners}; coordinator: {coordinator}")
    return None
