"""A task that was told to go, and is kept by somebody's finalizer.

What it has goes with it, and Kubernetes sees to that once the task is gone: not before, however long a finalizer keeps
it.  Nothing brings such a task back, so it ends as one that somebody has ended, and none of its pods holds anything.
Where the deletion itself is by a finalizer, of those who want its children gone first or kept, it is Kubernetes' alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from collective_operator.api import CollectiveTask

_KUBERNETES_OWN = frozenset({"foregroundDeletion", "orphan"})


def is_kept(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a task was told to go, and somebody else keeps it."""
    finalizers = manifest["metadata"].get("finalizers") or ()
    return "deletionTimestamp" in manifest["metadata"] and bool(finalizers) and _KUBERNETES_OWN.isdisjoint(finalizers)


def as_told_to_go(task: CollectiveTask, manifest: Mapping[str, Any]) -> CollectiveTask:
    """Read a task as what its deletion makes of it: one that is ended, leaves no pod, and is not tried again."""
    if not is_kept(manifest):
        return task
    keepers = ", ".join(map(str, manifest["metadata"]["finalizers"]))
    policy = task.spec.policy.model_copy(update={"clean_pods": "All", "ttl_seconds_after_finished": None})
    spec = task.spec.model_copy(update={"policy": policy})
    return replace(task, spec=spec, abort=f"it was deleted, and is kept by its finalizers {keepers}", retry="")
