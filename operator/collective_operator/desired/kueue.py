"""A task that waits in a queue: its pods, the coordinator's among them, are one group of Kueue's plain pods.

Kueue admits a group as a whole, when there is room for all of it, and takes away the gate that holds each pod until
then.  The gate is set here and not left to Kueue's webhook: where Kueue is not installed, or its webhook is away,
nothing runs past the queue.  Source: Kueue's documentation, "Run Plain Pods".
"""

from __future__ import annotations

from typing import Any

from collective_operator.api import CollectiveTask

Manifest = dict[str, Any]

_QUEUE = "kueue.x-k8s.io/queue-name"
_GROUP = "kueue.x-k8s.io/pod-group-name"
_TOTAL = "kueue.x-k8s.io/pod-group-total-count"
_GATE = "kueue.x-k8s.io/admission"
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
