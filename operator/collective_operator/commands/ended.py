"""How a task of a cluster ended, as `collective run` writes it of its own: result.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator import conditions
from collective_operator.reasons import Type

ROUNDS = "rounds.jsonl"


def result_document(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Build what result.json holds; None of a task that goes on."""
    status = task.get("status") or {}
    found = conditions.by_type(status)
    kind = next((kind for kind in (Type.COMPLETE, Type.FAILED) if conditions.is_true(status, kind)), None)
    if kind is None:
        return None
    held, rounds = status.get("result") or {}, status.get("round", {})
    return {
        "phase": str(kind),
        "reason": found[kind]["reason"],
        "message": found[kind].get("message", ""),
        "rounds": rounds.get("current", 0),
        "accepted": rounds.get("accepted", 0),
        "testScore": held.get("testScore"),
        "voteScore": held.get("voteScore"),
        "proposer": held.get("proposer"),
        "model": held.get("model"),
        "formats": held.get("formats", []),
        "digest": held.get("digest"),
        "location": held.get("location"),
    }
