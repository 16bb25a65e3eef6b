"""What result.json holds: how a task ended, and what came of it, wherever it ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def result_of(status: Mapping[str, Any], *, phase: str, reason: str, message: str, model: str | None) -> dict[str, Any]:
    """Build it.

    Parameters
    ----------
    status
        The task's status at the end.
    phase, reason, message
        How it ended.
    model
        The model's file; None when there is none.
    """
    held, rounds = status.get("result") or {}, status.get("round", {})
    return {
        "phase": phase,
        "reason": reason,
        "message": message,
        "rounds": rounds.get("current", 0),
        "accepted": rounds.get("accepted", 0),
        "testScore": held.get("testScore"),
        "voteScore": held.get("voteScore"),
        "proposer": held.get("proposer"),
        "model": model,
        "formats": held.get("formats", []),
        "digest": held.get("digest"),
        "location": held.get("location"),
    }
