"""What people read: ``rounds.jsonl`` and the model, both derived from the checkpoint.

The checkpoint comes first and is the truth. A crash between it and these files leaves them one round behind, or with a
torn last line; `recover` makes them agree again, so that no round is missing and none stands twice.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.durable import sync_directory, write_durably
from collective_coordinator.spool import StoredWeights

LOG = logging.getLogger(__name__)

ROUNDS = "rounds.jsonl"
SAFETENSORS = "model.safetensors"
OPAQUE = "model.bin"
"""The model's file when its bytes are no safetensors: an original colearn learner pickles."""

BEST = "best-"
"""In front of the name of the best model's file."""

_MAX_HEADER = 100_000_000


class History:
    """The files for people in one state directory. All methods block: call in threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rounds = directory / ROUNDS

    def recover(self, snapshots: Sequence[Snapshot]) -> None:
        """Make the files agree with the checkpoints.

        Parameters
        ----------
        snapshots
            The kept decisions, newest first; empty before the first.
        """
        last = snapshots[0].round if snapshots else 0
        found = self._lines()
        records = {snapshot.round: snapshot.record for snapshot in snapshots if snapshot.record is not None}
        lines = [_recovered(found.get(number), records.get(number)) for number in range(1, last + 1)]
        missing = [number for number, line in enumerate(lines, start=1) if line is None]
        if missing:
            LOG.error("%s: rounds %s cannot be told any more, their checkpoints are gone", ROUNDS, missing)
        content = b"".join(line for line in lines if line is not None)
        if not self._rounds.exists() or self._rounds.read_bytes() != content:
            write_durably(self._rounds, content)
        if snapshots:
            self.publish(snapshots[0].weights, best=snapshots[0].best.weights)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add the line of a round that has just been decided."""
        line = _line(record)
        descriptor = os.open(self._rounds, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            try:
                if os.write(descriptor, line) != len(line):
                    raise OSError(None, "took only a part of a line")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)

    def publish(self, weights: StoredWeights, *, best: StoredWeights) -> None:
        """Put the accepted model and the best one under names of their own, each replaced at once and whole.

        They are second names of the checkpoint's files where the file system can do that: no bytes are copied.
        """
        self._link(weights, prefix="")
        self._link(best, prefix=BEST)
        sync_directory(self._directory)

    def _link(self, weights: StoredWeights, *, prefix: str) -> None:
        name, other = (SAFETENSORS, OPAQUE) if is_safetensors(weights) else (OPAQUE, SAFETENSORS)
        name, other = prefix + name, prefix + other
        aside = self._directory / f".{name}.tmp"
        aside.unlink(missing_ok=True)
        try:
            os.link(weights.path, aside)
        except OSError as error:
            LOG.debug("no second name for %s (%s): copied", weights.path.name, error.strerror)
            shutil.copyfile(weights.path, aside)
        # A rename onto another name of the same file does nothing, and leaves the new name behind.
        aside.replace(self._directory / name)
        aside.unlink(missing_ok=True)
        (self._directory / other).unlink(missing_ok=True)

    def _lines(self) -> dict[int, bytes]:
        try:
            raw = self._rounds.read_bytes()
        except FileNotFoundError:
            return {}
        lines: dict[int, bytes] = {}
        for line in raw.splitlines(keepends=True):
            try:
                number = json.loads(line)["round"]
            except (ValueError, KeyError, TypeError):
                LOG.warning("%s: a line that a crash has torn, written anew", ROUNDS)
                continue
            if line.endswith(b"\n"):
                lines.setdefault(number, line)
        return lines


def is_safetensors(weights: StoredWeights) -> bool:
    """Tell whether the bytes begin as safetensors do: a little-endian length, then a JSON header of that length."""
    with weights.path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if weights.size < 8 or length > min(weights.size - 8, _MAX_HEADER):
            return False
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except ValueError:
            return False


def _recovered(found: bytes | None, record: Mapping[str, Any] | None) -> bytes | None:
    """Give a round's line: what the checkpoint says, and as it stood when it said the same.

    How long the announcement took, only the line knows: the checkpoint came before it.
    """
    if record is None:
        return found
    if found is not None and _untimed(json.loads(found)) == _untimed(record):
        return found
    return _line(record)


def _untimed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seconds"}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
