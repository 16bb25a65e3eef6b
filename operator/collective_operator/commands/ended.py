"""How a task of a cluster ended, as `collective run` writes it of its own: result.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator import conditions
from collective_operator.run.result import result_of


def result_document(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Build what result.json holds; None of a task that goes on."""
    status = task.get("status") or {}
    if (found := conditions.ending(status)) is None:
        return None
    return result_of(
        status,
        phase=found["type"],
        reason=found["reason"],
        message=found.get("message", ""),
        model=(status.get("result") or {}).get("model"),
    )
