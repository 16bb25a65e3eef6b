"""The volume that holds the checkpoint, rounds.jsonl and the model: what outlives a coordinator's pod."""

from __future__ import annotations

from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.metadata import metadata


def volume_claim(task: CollectiveTask) -> dict[str, Any]:
    """Build the claim; without a class named, the cluster's default StorageClass serves it."""
    storage = task.spec.coordinator.storage
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(task, name=names.coordinator(task.name), component=names.COORDINATOR),
        "spec": spec,
    }
