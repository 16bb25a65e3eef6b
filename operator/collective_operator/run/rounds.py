"""Follows rounds.jsonl while the coordinator writes it.

The coordinator may rewrite the file after a crash, and its last line may be half there, so only whole lines count, and
each round is told once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class RoundsFile:
    """The rounds of a run, told one after the other.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.last = 0
        """The number of the last round told."""

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the rounds that were decided since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if file.seek(0, 2) < self._offset:
                self._offset = 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    record = json.loads(line)
                    number = int(record["round"])
                except (ValueError, KeyError, TypeError):
                    continue
                if number > self.last:
                    self.last = number
                    yield record
