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
    "NetworkPolicy": "networkpolicies",
}
"""By kind, as paths and rights name it."""

_GROUPS: Mapping[str, str] = {KIND: GROUP, "NetworkPolicy": "networking.k8s.io"}
_VERSIONS: Mapping[str, str] = {KIND: VERSION}


def group_of(kind: str) -> str:
    """Return the API group of a kind; empty for the core."""
    return _GROUPS.get(kind, "")


def api_version(kind: str) -> str:
    """Return the apiVersion of a kind, as manifests have it."""
    version = _VERSIONS.get(kind, "v1")
    return f"{group_of(kind)}/{version}" if group_of(kind) else version


def collection(kind: str, namespace: str | None) -> str:
    """Return the path of all objects of a kind, in a namespace or everywhere."""
    prefix = f"/apis/{api_version(kind)}" if group_of(kind) else f"/api/{api_version(kind)}"
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
