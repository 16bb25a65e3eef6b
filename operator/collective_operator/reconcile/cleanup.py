"""What is left to do once a task has ended: free what it holds, and after its time the task itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from collective_operator import conditions
from collective_operator.api import CollectiveTask
from collective_operator.cluster.protocol import Manifest, Observed, TaskEvent
from collective_operator.desired import names
from collective_operator.desired.kueue import is_held, is_last
from collective_operator.reasons import JUDGED, Reason, Type
from collective_operator.reconcile.actions import Delete, Release, Step
from collective_operator.reconcile.ending import seconds_left

_LEAVING_SECONDS = 60
"""How long a coordinator that has given its verdict may take to exit."""


def clean_up(
    task: CollectiveTask, manifest: Manifest, observed: Observed, status: Mapping[str, Any], now: datetime
) -> Iterator[Step]:
    """Remove pods as the policy says: learners at once, a coordinator when it does not leave by itself."""
    policy = task.spec.policy
    if policy.ttl_seconds_after_finished is not None and "completionTime" in status:
        left = seconds_left(status["completionTime"], policy.ttl_seconds_after_finished, now)
        if left <= 0:
            message = f"the task ended {policy.ttl_seconds_after_finished} s ago and is deleted"
            event = TaskEvent(type="Normal", reason=Reason.EXPIRED, message=message)
            yield Step(actions=(Delete(manifest),), events=(event,))
            return
        yield Step(wait=left)
    coordinator = observed.pods.get(names.coordinator(task.name))
    if coordinator and _goes(coordinator, task):
        yield _let_go(coordinator, status, now)
    yield from dismiss(task, observed)


def dismiss(task: CollectiveTask, observed: Observed) -> Iterator[Step]:
    """Remove learners that have done all that they can do, as the policy says."""
    if task.spec.policy.clean_pods == "None":
        return
    for name, pod in observed.pods.items():
        if name != names.coordinator(task.name) and _goes(pod, task):
            yield Step(actions=(Delete(pod),))


def kept_pods(task: CollectiveTask, observed: Observed, refused: Mapping[str, str]) -> dict[Type, list[str]]:
    """Tell what the cluster says of pods that are to go and that it keeps, by the condition that speaks of them."""
    kept: dict[Type, list[str]] = {Type.LEARNERS_READY: [], Type.COORDINATOR_READY: []}
    for name in sorted(refused.keys() & observed.pods.keys()):
        kind = Type.COORDINATOR_READY if name == names.coordinator(task.name) else Type.LEARNERS_READY
        kept[kind].append(f"{name}: {refused[name]}")
    return kept


def releases(observed: Observed, *, over: bool) -> tuple[Release, ...]:
    """Take Kueue's hold off pods that will not run any more; of a task that is over, also of those that stay."""
    pods = observed.pods.values() if observed.may_release else ()
    return tuple(Release(pod) for pod in pods if is_held(pod) or (over and is_last(pod)))


def _let_go(coordinator: Manifest, status: Mapping[str, Any], now: datetime) -> Step:
    """Remove a coordinator: rounds must not go on after the end, but one that has spoken is on its way out."""
    spoke = conditions.by_type(status).get(Type.FAILED, {}).get("reason") not in JUDGED
    if spoke and not _has_ended(coordinator) and "completionTime" in status:
        patience = seconds_left(status["completionTime"], _LEAVING_SECONDS, now)
        if 0 < patience <= _LEAVING_SECONDS:  # an end that has not been yet tells of a clock that was ahead
            return Step(wait=patience)
    return Step(actions=(Delete(coordinator),))


def _goes(pod: Manifest, task: CollectiveTask) -> bool:
    """Tell whether a pod is to be removed; one that has ended stays, so that its log can be read, unless all go."""
    there = "deletionTimestamp" not in pod["metadata"]
    return there and not (_has_ended(pod) and task.spec.policy.clean_pods != "All")


def _has_ended(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
