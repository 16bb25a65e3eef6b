"""A task that was told to go, and is kept: by somebody's finalizer, or by a pod of its own that does not go.

What it has goes with it, and Kubernetes sees to that once the task is gone: not before, however long a finalizer keeps
it.  Nothing brings such a task back, so it ends as one that somebody has ended, and none of its pods holds anything.
Where the deletion itself is by a finalizer, of those who want its children gone first or kept, it is Kubernetes' alone;
but when a child that is to be gone first is long overdue, the task does not say for ever what it said before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.pods import Pod, overdue_in
from collective_operator.status.judged import told

_CHILDREN_FIRST, _CHILDREN_KEPT = "foregroundDeletion", "orphan"


def keepers_of(manifest: Mapping[str, Any], pods: Sequence[Pod], now: datetime) -> str:
    """Name what keeps a task that was told to go; empty where nothing does, or Kubernetes has only to see to it."""
    finalizers = manifest["metadata"].get("finalizers") or ()
    if not finalizers or _CHILDREN_KEPT in finalizers:
        return ""
    if _CHILDREN_FIRST not in finalizers:
        return f"its finalizers {', '.join(map(str, finalizers))}"
    overdue = [pod.trouble for pod in pods if pod.trouble and pod.is_overdue(now)]
    return f"pods that are still there: {', '.join(told(overdue))}" if overdue else ""


def patience(manifest: Mapping[str, Any], pods: Sequence[Pod], now: datetime) -> float | None:
    """Return the seconds after which a pod that is to go before its task is overdue."""
    if _CHILDREN_FIRST not in (manifest["metadata"].get("finalizers") or ()):
        return None
    return overdue_in(pods, now)


def as_told_to_go(task: CollectiveTask, keepers: str) -> CollectiveTask:
    """Read a task as what its deletion makes of it: one that is ended, leaves no pod, and is not tried again."""
    if not keepers:
        return task
    policy = task.spec.policy.model_copy(update={"clean_pods": "All", "ttl_seconds_after_finished": None})
    spec = task.spec.model_copy(update={"policy": policy})
    return replace(task, spec=spec, abort=f"it was deleted, and is kept by {keepers}", retry="")
