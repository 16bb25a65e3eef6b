"""The volumes that outlive a pod: the coordinator's, for checkpoint, history and model, and each learner's, if any.

A learner keeps there what it must not forget, its ledger of privacy that is spent. The claim stays when its learner
leaves the task, and finds it again when it comes back.
"""

from __future__ import annotations

from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.api.task import Storage
from collective_operator.desired import names
from collective_operator.desired.metadata import metadata


def volume_claim(task: CollectiveTask) -> dict[str, Any]:
    """Build the coordinator's claim."""
    return _claim(task, task.spec.coordinator.storage, name=names.coordinator(task.name), component=names.COORDINATOR)


def learner_volume_claim(task: CollectiveTask, index: int, storage: Storage) -> dict[str, Any]:
    """Build a learner's claim."""
    labels = {names.INDEX_LABEL: str(index)}
    return _claim(task, storage, name=names.learner(task.name, index), component=names.LEARNER, **labels)


def _claim(task: CollectiveTask, storage: Storage, *, name: str, component: str, **labels: str) -> dict[str, Any]:
    """Build a claim; without a class named, the cluster's default StorageClass serves it."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(task, name=name, component=component, **labels),
        "spec": spec,
    }
