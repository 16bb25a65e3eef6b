"""What to do about a task: a pure function of what is there now.

It has no memory, no clock and no IO.  It may be called at any moment, twice, or after years: what it must remember
(when it started, how often a coordinator was lost) stands in the task's status, and names of children are
deterministic.  So an operator that is killed anywhere and started again carries on, and an event that never came costs
only time.

What holds on every path:

- the task's status says that it is accepted before any child exists;
- a pod is only ever created under its own name, so there is never a second coordinator;
- nothing is deleted but a pod of the task: one that has ended and must be made anew, one of a learner that the task
  no longer has, or any after the task's end;
- a task that does not progress ends within a bound: the coordinator's own verdict, its attempts, or a deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from collective_operator import conditions
from collective_operator.api import TaskInvalid, parse_task
from collective_operator.cluster.protocol import Manifest, Observed, TaskEvent
from collective_operator.conditions import Reason, Type, reason_of_verdict, unstamp
from collective_operator.desired import Child, Platform, desired_children, names
from collective_operator.pods import Pod, Trouble
from collective_operator.situation import Ending, Situation, look
from collective_operator.status import refused_status, status_of

_LEAVING_SECONDS = 60
"""How long a coordinator that has given its verdict may take to exit."""
_COORDINATOR_MARGIN_SECONDS = 30
_REFUSED_SECONDS = 15
"""How soon a create that the cluster turned down, or that lacks something, is tried again: quotas free up."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create a child."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this child."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Update:
    """Replace exactly this child."""

    manifest: Manifest


Action = Create | Delete | Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now."""

    actions: tuple[Action, ...] = ()
    status: dict[str, Any] | None = None
    """The task's new status, whole; None when it stays as it is."""
    events: tuple[TaskEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, if nothing happens before; None when only an event can change anything."""


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
        Its children, listed just now.
    now
        The time, with a time zone.
    platform
        Where the task runs.
    refused
        Children that the cluster would not create a moment ago, by name, with its words.
    """
    before = task.get("status") or {}
    if "deletionTimestamp" in task["metadata"]:
        return Decision()
    try:
        parsed = parse_task(task)
    except TaskInvalid as invalid:
        return _refuse(task, before, str(invalid), now)
    if _is_over(before):
        return _after_the_end(task, observed, before, now)
    seen = look(task=parsed, before=before, observed=observed, refused=refused or {}, now=now)
    status = status_of(seen, None)
    ending = _ending(seen, status, platform)
    if ending:
        status = status_of(seen, ending)
        cleaning = _after_the_end(task, observed, status, now)
        return _decide(before, status, actions=cleaning.actions, requeue_after=cleaning.requeue_after)
    if not conditions.is_true(before, Type.ACCEPTED):
        return _decide(before, status, requeue_after=0)
    steps = list(_steps(seen, observed, platform))
    return _decide(
        before,
        status,
        actions=tuple(action for step in steps for action in step.actions),
        events=tuple(event for step in steps for event in step.events),
        requeue_after=min(_waits(seen, status, platform, steps), default=None),
    )


def _decide(
    before: Mapping[str, Any],
    status: dict[str, Any],
    *,
    actions: tuple[Action, ...] = (),
    events: tuple[TaskEvent, ...] = (),
    requeue_after: float | None = None,
) -> Decision:
    return Decision(
        actions=actions,
        status=status if status != before else None,
        events=(*events, *conditions.transitions(before, status)),
        requeue_after=requeue_after,
    )


def _refuse(task: Manifest, before: Mapping[str, Any], message: str, now: datetime) -> Decision:
    if _is_over(before):
        return Decision()
    status = refused_status(
        before=before,
        generation=task["metadata"].get("generation", 1),
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


def _ending(seen: Situation, status: Mapping[str, Any], platform: Platform) -> Ending | None:
    """Find out whether it is over: by the coordinator's verdict, or else by a bound that was reached."""
    if seen.verdict:
        complete = seen.verdict.phase == "Complete"
        otherwise = Reason.COMPLETED if complete else Reason.COORDINATOR_FAILED
        return Ending(
            complete=complete,
            reason=reason_of_verdict(seen.verdict.reason, otherwise=otherwise),
            message=seen.verdict.message,
        )
    progressing = conditions.is_true(status, Type.PROGRESSING)
    if seen.failed_import and not progressing:  # rounds that run can do without one that comes back broken
        return Ending(complete=False, reason=Reason.IMPORT_FAILED, message=seen.failed_import.message)
    coordinator = status["coordinator"]
    if coordinator["attempts"] >= platform.coordinator_attempts:
        return Ending(
            complete=False,
            reason=Reason.COORDINATOR_FAILED,
            message=(
                f"the coordinator ended or was lost {coordinator['attempts']} times without deciding a round; last: "
                f"{coordinator.get('message', 'its container restarted')}"
            ),
        )
    policy = seen.task.spec.policy
    for reason, wait in _deadlines(seen, status):
        if wait <= 0:
            if reason is Reason.ACTIVE_DEADLINE:
                message = f"the task did not end within {policy.active_deadline_seconds} s"
            else:
                found = conditions.by_type(status)
                message = (
                    f"no round ran for {policy.pre_running_deadline_seconds} s or more; learners: "
                    f"{found[Type.LEARNERS_READY]['message']}; coordinator: {found[Type.COORDINATOR_READY]['message']}"
                )
            return Ending(complete=False, reason=reason, message=message)
    return None


def _deadlines(seen: Situation, status: Mapping[str, Any]) -> Iterator[tuple[Reason, float]]:
    """Yield each deadline that applies now and the seconds left until it."""
    policy = seen.task.spec.policy
    if policy.active_deadline_seconds is not None:
        yield Reason.ACTIVE_DEADLINE, _left(status["startTime"], policy.active_deadline_seconds, seen.now)
    progressing = conditions.by_type(status)[Type.PROGRESSING]
    # A coordinator that nobody reaches may be driving rounds: it and its kubelet have bounds of their own.
    if progressing["status"] == "True" or progressing["reason"] == Reason.COORDINATOR_SILENT:
        return
    # A coordinator that waits has the same deadline, from its own start, and knows who is missing: it speaks first.
    limit = policy.pre_running_deadline_seconds
    if seen.progress:
        limit = 2 * limit + _COORDINATOR_MARGIN_SECONDS
    yield Reason.PRE_RUNNING_DEADLINE, _left(progressing["lastTransitionTime"], limit, seen.now)


def _left(since: str, seconds: float, now: datetime) -> float:
    start = unstamp(since) or now
    return (start + timedelta(seconds=seconds) - now).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What to do about one child."""

    actions: tuple[Action, ...] = ()
    events: tuple[TaskEvent, ...] = ()
    wait: float | None = None


def _steps(seen: Situation, observed: Observed, platform: Platform) -> Iterator[_Step]:
    pods = {pod.name: pod for pod in (*seen.learners, seen.coordinator) if pod}
    others = {
        "Service": observed.services,
        "ConfigMap": observed.config_maps,
        "PersistentVolumeClaim": observed.volume_claims,
    }
    for child in desired_children(seen.task, platform):
        if child.kind != "Pod":
            there = others[child.kind].get(child.name)
            if there is None:
                yield _Step(actions=(Create(child.build()),))
            elif child.kind == "ConfigMap" and there.get("data") != (data := child.build()["data"]):
                yield _reconfigure(there, data, seen)
        elif child.name not in pods:
            # A pod that mounts what is not there would hang, and say so nowhere.
            waits = seen.missing_code and child.name != names.coordinator(seen.task.name)
            yield _Step(wait=_REFUSED_SECONDS) if waits else _make(child, seen)
        elif pods[child.name].ended and not pods[child.name].terminating:
            yield _replace(pods[child.name], observed.pods[child.name], seen.now, platform)
    yield from _removals(seen, observed)


def _reconfigure(there: Manifest, data: Mapping[str, str], seen: Situation) -> _Step:
    """Tell the coordinator of learners that join or leave."""
    message = f"{there['metadata']['name']}: written anew, for {seen.task.spec.learners.size} learners"
    event = TaskEvent(type="Normal", reason=Reason.RECONFIGURED, message=message)
    return _Step(actions=(Update({**there, "data": dict(data)}),), events=(event,))


def _removals(seen: Situation, observed: Observed) -> Iterator[_Step]:
    """Remove learners that the task no longer has, once the coordinator has let go of them.

    It reads its configuration between two rounds, and a kubelet brings that a minute late: a learner that it still
    names takes part.  Where no coordinator answers there is nobody to wait for.
    """
    task = seen.task
    in_use = {learner.name for learner in seen.progress.learners} if seen.progress else set()
    for name, manifest in observed.pods.items():
        index = str((manifest["metadata"].get("labels") or {}).get(names.INDEX_LABEL))
        if not index.isdecimal() or name != names.learner(task.name, int(index)):
            continue
        going = "deletionTimestamp" in manifest["metadata"] or f"{names.LEARNER}-{index}" in in_use
        if int(index) >= task.spec.learners.size and not going:
            message = f"{name}: the task has {task.spec.learners.size} learners now"
            event = TaskEvent(type="Normal", reason=Reason.REMOVED, message=message)
            yield _Step(actions=(Delete(manifest),), events=(event,))


def _make(child: Child, seen: Situation) -> _Step:
    """Create a pod, and tell when it is not the first of its name."""
    known = {
        names.learner(seen.task.name, index): learner["state"] not in ("Missing", Reason.CREATE_REFUSED)
        for index, learner in enumerate(seen.before.get("learnerStatuses", ()))
    } | {names.coordinator(seen.task.name): bool(seen.before.get("coordinator", {}).get("uid"))}
    event = TaskEvent(type="Warning", reason=Reason.REPLACED, message=f"{child.name} is gone and is created anew")
    return _Step(actions=(Create(child.build()),), events=(event,) if known.get(child.name) else ())


def _replace(pod: Pod, manifest: Manifest, now: datetime, platform: Platform) -> _Step:
    """Remove a pod that has ended; it is created anew when it is gone."""
    age = (now - pod.created).total_seconds() if pod.created else platform.replace_seconds
    if age < platform.replace_seconds:
        return _Step(wait=platform.replace_seconds - age)
    trouble = pod.trouble or Trouble(reason=Reason.CRASHING, message=f"{pod.name}: ended without a verdict")
    event = TaskEvent(type="Warning", reason=Reason.REPLACED, message=trouble.message)
    return _Step(actions=(Delete(manifest),), events=(event,))


def _waits(seen: Situation, status: Mapping[str, Any], platform: Platform, steps: list[_Step]) -> Iterator[float]:
    for _, left in _deadlines(seen, status):
        yield left
    for step in steps:
        if step.wait is not None:
            yield step.wait
    if seen.coordinator and seen.coordinator.running:
        yield platform.poll_seconds
    if seen.refused:
        yield _REFUSED_SECONDS


def _after_the_end(task: Manifest, observed: Observed, status: Mapping[str, Any], now: datetime) -> Decision:
    """Free what the task holds: learners at once, a coordinator when it does not leave by itself.

    Pods that have ended stay: they hold nothing, and their logs tell the story.
    """
    coordinator = observed.pods.get(names.coordinator(task["metadata"]["name"]))
    spoke = coordinator is not None and (conditions.is_true(status, Type.COMPLETE) or _verdict_ended(status))
    patience = _left(status["completionTime"], _LEAVING_SECONDS, now) if spoke and "completionTime" in status else 0
    holding = [pod for pod in observed.pods.values() if _holds(pod) and (pod is not coordinator or patience <= 0)]
    waiting = coordinator is not None and _holds(coordinator) and patience > 0
    return Decision(actions=tuple(map(Delete, holding)), requeue_after=patience if waiting else None)


def _verdict_ended(status: Mapping[str, Any]) -> bool:
    """Tell whether a coordinator itself said that it failed: it is then on its way out."""
    own = (Reason.PRE_RUNNING_DEADLINE, Reason.ACTIVE_DEADLINE, Reason.COORDINATOR_FAILED, Reason.IMPORT_FAILED)
    return conditions.by_type(status).get(Type.FAILED, {}).get("reason") not in own


def _holds(pod: Manifest) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and "deletionTimestamp" not in pod["metadata"]
