"""Follows rounds.jsonl while the coordinator writes it, in a folder or wherever else its lines come from.

The coordinator may rewrite the file after a crash, and its last line may be half there, so only whole lines count, and
each round is told once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Rounds:
    """The rounds in whole lines, each told once."""

    def __init__(self, *, offset: int = 0) -> None:
        self.offset = offset
        """Where the first line begins that was not read."""
        self._last = 0
        """The number of the last round told."""

    def restart(self) -> None:
        """Read from the beginning: the file is shorter than it was."""
        self.offset = 0

    def of(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the rounds in lines that the file has from the offset on."""
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self.offset += len(line)
            try:
                record = json.loads(line)
                number = int(record["round"])
            except (ValueError, KeyError, TypeError):
                continue
            if number > self._last:
                self._last = number
                yield record


class RoundsFile:
    """The rounds of a run, told one after the other.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rounds = Rounds()

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the rounds that were decided since the last call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if file.seek(0, 2) < self._rounds.offset:
                self._rounds.restart()
            file.seek(self._rounds.offset)
            yield from self._rounds.of(file)
