"""What kopf keeps of objects: nothing.

kopf takes two copies of every object that a watch brings, to find out what has changed since a handler of it last
succeeded.  The handlers here are of the kind that are told of everything and asked nothing, so this would be for
nobody, and it takes a quarter of the operator's time while a thousand tasks start.
"""

from __future__ import annotations

from typing import Any

import kopf
from kopf._cogs.configs.progress import ProgressRecord


class NoDiffs(kopf.DiffBaseStorage):
    """Finds nothing in an object that could differ."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Extract what a later version is to be compared with."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Find what was stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """Has no handler whose progress matters."""

    def fetch(self, **_: Any) -> ProgressRecord | None:
        """Find what was stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""

    def purge(self, **_: Any) -> None:
        """Remove nothing."""

    def touch(self, **_: Any) -> None:
        """Change nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Leave it as it is."""
        return essence
