"""What both kinds of pod have in common: the restricted Pod Security profile, and no way to the Kubernetes API."""

from __future__ import annotations

from typing import Any

UID = 10001
"""The user and group of both images; fsGroup makes volumes writable to it."""

TMP = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - a mount of its own, in a pod


def pod_security() -> dict[str, Any]:
    """Build the pod's securityContext."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Build a container's securityContext."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def tmp_volume() -> dict[str, Any]:
    """Build the volume behind ``TMP``, as the root file system is read-only."""
    return {"name": "tmp", "emptyDir": {}}


def pod_spec(*, container: dict[str, Any], volumes: list[dict[str, Any]], restart_policy: str) -> dict[str, Any]:
    """Build the spec of a pod with one container."""
    return {
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": 30,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [*volumes, tmp_volume()],
    }
