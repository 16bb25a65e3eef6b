"""A task that waits in a queue: its pods, the coordinator's among them, are one group of Kueue's plain pods.

Kueue admits a group as a whole, when there is room for all of it, and takes away the gate that holds each pod until
then.  The gate is set here and not left to Kueue's webhook: where Kueue is not installed, or its webhook is away,
nothing runs past the queue.

Kueue holds on to pods of a group that are gone, by a finalizer, until others of other names have taken their place.
Pods of a task keep their names, so its hold is taken off those that will not run any more: else none that was evicted
or preempted would ever come back, and no task stand still.  And a group of which some pods are gone never ends by
itself: what is left of one whose task has ended says that no others will come, so that its quota is free.  Source:
Kueue's documentation, "Run Plain Pods", and its controller of pods, pkg/controller/jobs/pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator.api import CollectiveTask

Manifest = dict[str, Any]

_QUEUE = "kueue.x-k8s.io/queue-name"
_GROUP = "kueue.x-k8s.io/pod-group-name"
_TOTAL = "kueue.x-k8s.io/pod-group-total-count"
_GATE = "kueue.x-k8s.io/admission"
_HOLD = "kueue.x-k8s.io/managed"
_RETRIABLE = "kueue.x-k8s.io/retriable-in-group"
_COORDINATOR = 1


def queued(task: CollectiveTask, pod: Manifest) -> Manifest:
    """Put a pod into the task's queue, if it has one."""
    if task.spec.queue_name is None:
        return pod
    metadata, spec = pod["metadata"], pod["spec"]
    return {
        **pod,
        "metadata": {
            **metadata,
            # The task's uid, so that a task of the same name does not join the group of the one before.
            "labels": {**metadata["labels"], _QUEUE: task.spec.queue_name, _GROUP: task.uid},
            "annotations": {**metadata.get("annotations", {}), _TOTAL: str(task.spec.learners.size + _COORDINATOR)},
        },
        "spec": {**spec, "schedulingGates": [*spec.get("schedulingGates", ()), {"name": _GATE}]},
    }


def is_held(pod: Mapping[str, Any]) -> bool:
    """Tell whether Kueue holds on to a pod that was told to go and will not run any more."""
    gone = "deletionTimestamp" in pod["metadata"] and (_has_ended(pod) or not (pod.get("spec") or {}).get("nodeName"))
    return gone and _HOLD in (pod["metadata"].get("finalizers") or ())


def is_last(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod of a task that has ended stands there, and Kueue waits for others."""
    told = _RETRIABLE in (pod["metadata"].get("annotations") or {})
    return _has_ended(pod) and _HOLD in (pod["metadata"].get("finalizers") or ()) and not told


def released(pod: Mapping[str, Any]) -> Manifest:
    """Build the patch that lets a pod go, or says of one that stays that no others will come in the place of those."""
    metadata = pod["metadata"]
    if "deletionTimestamp" not in metadata:
        return {"metadata": {"annotations": {_RETRIABLE: "false"}}}
    left = [finalizer for finalizer in metadata["finalizers"] if finalizer != _HOLD]
    return {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": left or None}}


def _has_ended(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
