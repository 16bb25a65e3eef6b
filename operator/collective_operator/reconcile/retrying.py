"""A task that has failed and is to be tried again: it begins as new, but for what its volume holds.

Its pods go first: the coordinator's last word is in one, and would end the task once more.  Learners that should be
gone for long are not waited for: that their nodes do not answer may be why it has failed.  A coordinator is, however
long that takes, and the status tells of it: there are never two.  Then the status forgets the failure, and with it
everything that was counted towards one: deadlines begin anew, and crashes are forgiven.  The coordinator goes on after
the last decided round, and takes the verdict on its volume for that of an earlier try.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from collective_operator import conditions
from collective_operator.api import CollectiveTask
from collective_operator.cluster.protocol import Observed, TaskEvent
from collective_operator.desired import names
from collective_operator.pods import Pod, overdue_in, read_pod
from collective_operator.reasons import Reason, Type
from collective_operator.reconcile.actions import Decision, Delete
from collective_operator.reconcile.cleanup import kept_pods
from collective_operator.situation import look
from collective_operator.status import looked_at, status_of

_KEPT = ("round", "latest", "score")
_KEPT_OF_LEARNERS = ("name", "lastScore", "privacy")


def is_retried(task: CollectiveTask, status: Mapping[str, Any]) -> bool:
    """Tell whether just this failure is to be tried again."""
    return conditions.is_true(status, Type.FAILED) and task.retry == status.get("completionTime")


def begin_again(
    task: CollectiveTask, observed: Observed, before: Mapping[str, Any], refused: Mapping[str, str], now: datetime
) -> Decision:
    """Remove what is left of the failed try, then forget it."""
    pods = [read_pod(manifest) for manifest in observed.pods.values()]
    if any(pod.name == names.coordinator(task.name) or not pod.is_overdue(now) for pod in pods):
        left = [observed.pods[pod.name] for pod in pods if not pod.terminating]
        kept = kept_pods(task, observed, refused)
        kept[Type.COORDINATOR_READY] += _leaving(task, pods, now)
        status = looked_at(before, task.generation, kept=kept)
        return Decision(
            actions=tuple(map(Delete, left)),
            status=status if status != before else None,
            requeue_after=overdue_in(pods, now),
        )
    anew = _forgotten(before)
    status = status_of(look(task=task, before=anew, observed=observed, refused={}, now=now), None)
    failed = conditions.by_type(before)[Type.FAILED]
    message = f"it had failed at {task.retry} ({failed['reason']}); {status['round']['current']} rounds are decided"
    event = TaskEvent(type="Normal", reason=Reason.RETRIED, message=message)
    events = (event, *conditions.transitions(anew, status))
    return Decision(status=status, events=events, requeue_after=0, final=True)


def _leaving(task: CollectiveTask, pods: Iterable[Pod], now: datetime) -> list[str]:
    """Tell what keeps a coordinator that should be gone for long."""
    return [
        f"{pod.trouble.message}; the task is tried again when it is gone"
        for pod in pods
        if pod.name == names.coordinator(task.name) and pod.trouble and pod.is_overdue(now)
    ]


def _forgotten(before: Mapping[str, Any]) -> dict[str, Any]:
    learners = [
        {field: learner[field] for field in _KEPT_OF_LEARNERS if field in learner}
        for learner in before.get("learnerStatuses", ())
    ]
    return {**{field: before[field] for field in _KEPT if field in before}, "learnerStatuses": learners}
