"""One turn of the loop: get, observe, decide, act, tell.

Most turns find that nothing is to be done, and for that what is remembered of a task will do.  What cannot be taken
back is decided on a fresh look alone.

The order matters.  Actions come before the status, so that a status never speaks of what was not done, and events come
last, so that a status that could not be written is not announced twice.  What the cluster refuses to create goes into
the decision once more, because a task that waits for a quota must say so.

A task that begins has two rounds of it in one turn: it is accepted, and then its pods are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from collective_operator.api import is_managed_elsewhere
from collective_operator.cluster.objects import key_of
from collective_operator.cluster.protocol import (
    Cluster,
    ClusterError,
    Manifest,
    Observed,
    Secured,
    TaskEvent,
    TaskKey,
)
from collective_operator.desired import Platform
from collective_operator.reasons import Reason
from collective_operator.reconcile import Action, Create, Decision, Delete, Release, Update, reconcile

_AT_ONCE = 8
"""Requests in flight for one task: a big one starts fast and does not take the whole API server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one turn came to."""

    task: Manifest | None
    """The task with its status as it is now; None when it is gone."""
    requeue_after: float | None = None
    """Seconds after which to look again; None when only an event can change anything."""
    wants_to_start: bool = False
    """Nothing was done: the task is to begin, and this turn was not to."""


async def reconcile_once(
    cluster: Cluster, key: TaskKey, *, now: datetime, platform: Platform, may_start: bool = True
) -> Outcome:
    """Bring one task a step closer to what it should be.

    Parameters
    ----------
    cluster, key
        Where it is, and which.
    now
        The time, with a time zone.
    platform
        Where the task runs.
    may_start
        Whether a task may begin in this turn: be accepted, and have its pods made.

    Raises
    ------
    ClusterError
        When the cluster cannot be asked, or the task changed in between: try again later.  Nothing is lost by it.
    """
    found, is_proven = await _look(cluster, key, now=now, platform=platform, anew=False), False
    if found and found.decision.starts and not may_start:
        return Outcome(task=found.task, wants_to_start=True)
    if found and found.decision.accepts:
        await _carry_out(cluster, found, now=now, platform=platform)
        # That the status could be written has shown that the task is as it was remembered.
        found, is_proven = await _look(cluster, key, now=now, platform=platform, anew=False), True
    if found and found.decision.needs_a_fresh_look:
        remembered = found.observed.remembered
        if remembered or not (is_proven or await _still(cluster, found)):
            found = await _look(cluster, key, now=now, platform=platform, anew=True)
    if found is None:
        return Outcome(task=None)
    return await _carry_out(cluster, found, now=now, platform=platform)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a look came to."""

    task: Manifest
    observed: Observed
    decision: Decision


async def _look(cluster: Cluster, key: TaskKey, *, now: datetime, platform: Platform, anew: bool) -> _Found | None:
    """Look at a task, and decide; None when it is gone."""
    task = await cluster.get_task(key, anew=anew)
    if task is None:
        return None
    if is_managed_elsewhere(task):
        return _Found(task=task, observed=Observed(), decision=Decision())
    observed = await cluster.observe(task, anew=anew)
    decision = reconcile(task=task, observed=observed, now=now, platform=platform)
    return _Found(task=task, observed=observed, decision=decision)


async def _still(cluster: Cluster, found: _Found) -> bool:
    """Tell whether a task whose children were listed just now is as it was remembered."""
    task = await cluster.get_task(key_of(found.task), anew=True)
    return task is not None and task["metadata"].get("resourceVersion") == found.task["metadata"].get("resourceVersion")


async def _carry_out(cluster: Cluster, found: _Found, *, now: datetime, platform: Platform) -> Outcome:
    """Do what was decided, and tell of it."""
    task, observed, decision = found.task, found.observed, found.decision
    secured = await cluster.secure(task, decision.secure) if decision.secure else Secured()
    refused, kept = await _act(cluster, decision.actions, refused={**observed.refused, **secured.refused})
    if kept or refused != observed.refused:
        said = {**refused, **{name: error.message for name, error in kept.items()}}
        decision = reconcile(task=task, observed=observed, now=now, platform=platform, refused=said)
    if decision.status is not None:
        await cluster.update_status(task, decision.status)
        task = {**task, "status": decision.status}
    cluster.emit(task, [*decision.events, *_renewed(secured)])
    for error in kept.values():  # told by now, and tried again less and less often
        raise error
    return Outcome(task=task, requeue_after=decision.requeue_after)


async def _act(
    cluster: Cluster, actions: Sequence[Action], *, refused: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, ClusterError]]:
    """Carry actions out.

    Returns
    -------
    tuple
        By the child's name: what was refused, with the cluster's words; and pods that it does not let go.
    """
    refused, kept = dict(refused), dict[str, ClusterError]()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def carry_out(action: Action) -> None:
        name = action.manifest["metadata"]["name"]
        async with gate:
            try:
                match action:
                    case Delete(manifest):
                        await cluster.delete(manifest)
                    case Release(manifest):
                        await cluster.release(manifest)
                    case Update(manifest):
                        await cluster.update(manifest)
                    case Create(manifest, again):
                        if manifest["kind"] == "Pod" and (why := _lacks(manifest, refused)):
                            refused[name] = why
                        else:
                            await cluster.create(manifest, strictly=not again)
            except ClusterError as error:
                if isinstance(action, Delete) and action.manifest["kind"] == "Pod" and error.refused:
                    kept[name] = error
                    return
                changed = isinstance(action, Update) and error.conflict
                if isinstance(action, Delete) or changed or not error.refused:
                    raise
                refused[name] = error.message

    for group in (_pods(actions, wanted=False), _pods(actions, wanted=True)):
        errors = [
            error for error in await asyncio.gather(*map(carry_out, group), return_exceptions=True) if error is not None
        ]
        if errors:
            raise errors[0]
    return refused, kept


def _pods(actions: Iterable[Action], *, wanted: bool) -> list[Action]:
    """Pick the actions on pods, or those on all else: what a pod mounts, or what guards it, is there before the pod."""
    return [action for action in actions if (action.manifest["kind"] == "Pod") == wanted]


def _lacks(pod: Manifest, refused: Mapping[str, str]) -> str | None:
    """Tell what a pod needs that was refused: it would hang without, or run unguarded, and hold a GPU all the while."""
    for name in (pod["metadata"]["name"], pod["spec"].get("subdomain")):
        if name in refused:
            return refused[name]
    return None


def _renewed(secured: Secured) -> list[TaskEvent]:
    if not secured.renewed:
        return []
    return [TaskEvent(type="Normal", reason=Reason.CREDENTIALS_RENEWED, message="; ".join(secured.renewed))]
