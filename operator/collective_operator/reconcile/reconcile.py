"""What to do about a task: a pure function of what is there now.

It has no memory, no clock and no IO.  It may be called at any moment, twice, or after years: what it must remember
(when it started, how often a coordinator was lost) stands in the task's status, and names of children are
deterministic.  So an operator that is killed anywhere and started again carries on, and an event that never came costs
only time.

What holds on every path:

- the task's status says that it is accepted before any child exists, that it stands still no more before any pod does
  again, and how it ended before its pods are removed;
- a pod is only ever created under its own name, so there is never a second coordinator;
- nothing is deleted but a pod of the task: one that has ended and must be made anew, one that has crashed too often,
  one of a learner that the task no longer has or needs, all while it is suspended, after its end or before it is tried
  again; and, in its time, the task;
- a task that does not progress ends within a bound, or stands still because it is suspended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from collective_operator import conditions
from collective_operator.api import CollectiveTask, TaskInvalid, parse_task
from collective_operator.cluster.protocol import Manifest, Observed
from collective_operator.desired import Platform
from collective_operator.desired.inherited import as_begun
from collective_operator.pods import read_pod
from collective_operator.reasons import Reason, Type
from collective_operator.reconcile.actions import Create, Decision, Step
from collective_operator.reconcile.cleanup import clean_up, kept_pods, releases
from collective_operator.reconcile.departure import as_told_to_go, keepers_of, patience
from collective_operator.reconcile.ending import deadlines, ending_of
from collective_operator.reconcile.retrying import begin_again, is_retried
from collective_operator.reconcile.suspension import send_away
from collective_operator.reconcile.unread import as_far_as_read, ending_unread
from collective_operator.reconcile.upkeep import upkeep
from collective_operator.securing import Secure, securing
from collective_operator.situation import Situation, Suspension, look
from collective_operator.status import ended_unread, looked_at, refused_status, status_of

_REFUSED_SECONDS = 2
"""How soon a create that the cluster turned down, or that lacks something, is tried again at the earliest."""
_CREATING_SECONDS = 30
"""How often a pod that is being made is looked at: that it cannot be is said in Events alone, which nobody watches."""


def reconcile(
    *,
    task: Manifest,
    observed: Observed,
    now: datetime,
    platform: Platform,
    refused: Mapping[str, str] | None = None,
) -> Decision:
    """Decide what to do about one task.

    Parameters
    ----------
    task
        The CollectiveTask as the API has it.
    observed
        Its children.
    now
        The time, with a time zone.
    platform
        Where the task runs.
    refused
        Children that the cluster would not create a moment ago, by name, with its words.
    """
    before = task.get("status") or {}
    keepers = ""
    if "deletionTimestamp" in task["metadata"]:
        pods = [read_pod(manifest) for manifest in observed.pods.values()]
        keepers = keepers_of(task, pods, now)
        if not keepers:
            return Decision(actions=releases(observed, over=False), requeue_after=patience(task, pods, now))
    decision = _decided(task, before, observed, now, platform, refused or {}, keepers)
    if held := releases(observed, over=_is_over(before)):
        return replace(decision, actions=(*decision.actions, *held))
    return decision


def _decided(
    task: Manifest,
    before: Mapping[str, Any],
    observed: Observed,
    now: datetime,
    platform: Platform,
    refused: Mapping[str, str],
    keepers: str,
) -> Decision:
    try:
        read, invalid = parse_task(task), ""
    except TaskInvalid as error:
        read, invalid = as_far_as_read(task), str(error)
    parsed = as_told_to_go(read, keepers)
    if _is_over(before):
        if is_retried(parsed, before) and not invalid:
            return begin_again(parsed, observed, before, refused, now)
        return _clean_up(parsed, task, before, observed, refused, now)
    if invalid:
        return _refuse(parsed, before, observed, invalid, now)
    parsed, platform = as_begun(parsed, platform, observed.pods.values())
    seen = look(
        task=parsed,
        before=conditions.not_ahead(before, now),
        observed=observed,
        refused=refused,
        now=now,
        dashboard=platform.dashboard(parsed),
    )
    return _go_on(seen, before, observed, platform)


def _clean_up(
    parsed: CollectiveTask,
    task: Manifest,
    before: Mapping[str, Any],
    observed: Observed,
    refused: Mapping[str, str],
    now: datetime,
) -> Decision:
    """Decide about a task that has ended."""
    steps = list(clean_up(parsed, task, observed, before, now))
    # Of a task that is deleted now there is no status any more.
    goes = any(action.manifest is task for step in steps for action in step.actions)
    kept = kept_pods(parsed, observed, refused)
    return _decide(before, before if goes else looked_at(before, parsed.generation, kept=kept), steps)


def _go_on(seen: Situation, before: Mapping[str, Any], observed: Observed, platform: Platform) -> Decision:
    """Decide about a task that has not ended yet, and whose status stands as it was before."""
    status = status_of(seen, None)
    if ending := ending_of(seen, status):
        return _decide(before, status_of(seen, ending), waits=[0], final=True)
    stands_still = seen.suspension is Suspension.DONE
    goes_on = seen.suspension is Suspension.NONE
    # That none of its pods is there is taken back before the first of them is made.
    if not conditions.is_true(before, Type.ACCEPTED) or (goes_on and conditions.is_true(before, Type.SUSPENDED)):
        return _decide(before, status, waits=[0], final=stands_still, accepts=goes_on)
    if seen.suspension is not Suspension.NONE:
        # Somebody may have wanted it to go on before it stood still.
        waits = [0] if seen.suspension is not Suspension.GOING and not seen.task.spec.suspend else []
        return _decide(before, status, send_away(seen, observed), waits, final=stands_still)
    steps = list(upkeep(seen, observed, platform))
    secure = securing(seen.task, platform, created=_new_pods(steps), due=observed.credentials_due)
    return _decide(before, status, steps, _waits(seen, observed, status, platform), secure=secure)


def _decide(
    before: Mapping[str, Any],
    status: Mapping[str, Any],
    steps: Iterable[Step] = (),
    waits: Iterable[float] = (),
    *,
    final: bool = False,
    accepts: bool = False,
    secure: Secure | None = None,
) -> Decision:
    """Put together what is to be done, and tell what has changed."""
    steps = list(steps)
    moved = [*conditions.transitions(before, status)]
    # Where a condition has come to just that, it tells of the child, too.
    told = {event.reason for event in moved}
    events = [event for step in steps for event in step.events if event.reason not in told]
    return Decision(
        secure=secure,
        actions=tuple(action for step in steps for action in step.actions),
        status=dict(status) if status != before else None,
        events=(*events, *moved),
        requeue_after=min([*waits, *(step.wait for step in steps if step.wait is not None)], default=None),
        final=final and status != before,
        accepts=accepts,
    )


def _new_pods(steps: Iterable[Step]) -> set[str]:
    created = [action.manifest for step in steps for action in step.actions if isinstance(action, Create)]
    return {manifest["metadata"]["name"] for manifest in created if manifest["kind"] == "Pod"}


def _refuse(
    read: CollectiveTask, before: Mapping[str, Any], observed: Observed, message: str, now: datetime
) -> Decision:
    """Decide about a task that has not ended yet, and whose spec cannot be read."""
    if "startTime" in before and (found := ending_unread(read, observed)):
        ending, verdict = found
        result = verdict.result.model_dump(by_alias=True, exclude_none=True) if verdict and verdict.result else None
        status = ended_unread(
            before=before, generation=read.generation, message=message, ending=ending, result=result, now=now
        )
        return _decide(before, status, waits=[0], final=True)
    status = refused_status(
        before=before,
        generation=read.generation,
        message=message,
        started="startTime" in before,
        now=now,
    )
    return _decide(before, status)


def _is_over(status: Mapping[str, Any]) -> bool:
    """Tell whether a task has ended; one that was only refused is looked at anew, as nothing of it was started."""
    failed = conditions.by_type(status).get(Type.FAILED, {})
    return conditions.is_true(status, Type.COMPLETE) or (
        failed.get("status") == "True" and failed.get("reason") != Reason.INVALID_SPEC
    )


def _waits(seen: Situation, observed: Observed, status: Mapping[str, Any], platform: Platform) -> Iterable[float]:
    """Yield when to look again, whatever is done about children."""
    for _, left in deadlines(seen, status):
        yield left
    if seen.coordinator and seen.coordinator.running:
        yield platform.poll_seconds
    # The keys of pods that are there are looked at in their own time.
    if observed.refused or seen.refused.keys() - (observed.unsecured.keys() & observed.pods.keys()):
        yield max(observed.refused_seconds, _REFUSED_SECONDS)
    if any(pod.being_made for pod in seen.pods):
        yield _CREATING_SECONDS
