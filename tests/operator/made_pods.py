"""Pods as an API server has them, as far as what is wrong with them goes."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]


def pod(phase: str, *, container: Manifest | None = None, conditions: Any = (), **status: Any) -> Manifest:
    return {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": phase,
            "conditions": [{"type": kind, "status": holds, **more} for kind, holds, more in conditions],
            "containerStatuses": [] if container is None else [{"name": "learner", "restartCount": 0, **container}],
            **status,
        },
    }


def waiting(reason: str, message: str = "") -> Manifest:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def terminated(code: int, reason: str = "Error", message: str = "") -> Manifest:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}
