"""How times and texts stand in Kubernetes' objects."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(now: datetime) -> str:
    """Write a time as Kubernetes does."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unstamp(text: str | None) -> datetime | None:
    """Read a time as Kubernetes writes it; None when there is none, or one of no calendar: the year 0 is taken, too."""
    try:
        return datetime.fromisoformat(text.upper()) if text else None
    except ValueError:
        return None


def shortened(text: str, limit: int) -> str:
    """Cut a text to a bound, visibly."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
