"""What every child has in common: its identity, and its owner.

The owner reference is what deletes the child when the task goes, with the operator alive or not.
"""

from __future__ import annotations

from typing import Any

from collective_operator.api import API_VERSION, KIND, CollectiveTask
from collective_operator.desired import names


def metadata(task: CollectiveTask, *, name: str, component: str, **labels: str) -> dict[str, Any]:
    """Build a child's metadata."""
    return {
        "name": name,
        "namespace": task.namespace,
        "labels": names.labels(task.name, component) | labels,
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": task.name,
                "uid": task.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
