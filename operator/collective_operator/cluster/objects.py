"""Where objects stand in the Kubernetes API, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator.api import GROUP, KIND, PLURAL, VERSION
from collective_operator.cluster.protocol import TaskKey

PLURALS: Mapping[str, str] = {
    KIND: PLURAL,
    "Pod": "pods",
    "Service": "services",
    "ConfigMap": "configmaps",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}
"""By kind, as paths and rights name it."""


def collection(kind: str, namespace: str | None) -> str:
    """Return the path of all objects of a kind, in a namespace or everywhere."""
    prefix = f"/apis/{GROUP}/{VERSION}" if kind == KIND else "/api/v1"
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{prefix}{where}/{PLURALS[kind]}"


def path_of(manifest: Mapping[str, Any]) -> str:
    """Return the path of one object."""
    return f"{collection(manifest['kind'], manifest['metadata']['namespace'])}/{manifest['metadata']['name']}"


def task_path(key: TaskKey) -> str:
    """Return the path of a task."""
    return f"{collection(KIND, key.namespace)}/{key.name}"


def key_of(task: Mapping[str, Any]) -> TaskKey:
    """Name a task."""
    return TaskKey(task["metadata"]["namespace"], task["metadata"]["name"])


def is_owned(manifest: Mapping[str, Any], uid: str) -> bool:
    """Tell whether an object belongs to the one with this uid.

    What carries a task's label and not its uid as owner is not the task's: it belongs to a deleted task of the same
    name, or to somebody else, and is neither used nor touched.
    """
    return any(owner["uid"] == uid for owner in manifest["metadata"].get("ownerReferences") or ())
