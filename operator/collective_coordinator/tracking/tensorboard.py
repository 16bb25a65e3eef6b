"""Rounds as event files of TensorBoard's, in a folder, or copied to a store from one.

Each start begins a file of its own, and the first event of a later one tells readers from which round on they are to
forget what an earlier file says: a process that was killed may have written rounds that it could not note any more.
Written with the record writer itself and not through a queue of a thread: a full disk must be an error here.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from collective_coordinator.delivery.courier import Place
from collective_coordinator.durable import write_durably
from collective_coordinator.tracking.series import Row

FOLDER = "tensorboard"
"""Of the volume, where event files lie that are copied to a store."""
NOTES = ".tensorboard.json"
"""Beside the checkpoint: how far the event files are written."""

_SHARE = 20
"""Copying takes a twentieth of the time at most."""
_LEAST_PAUSE_S = 15.0


class TensorBoardSink:
    """Event files in one folder.

    Parameters
    ----------
    where
        A folder (relative: below the task's volume), or the URL of a store.
    directory
        The task's volume.
    """

    def __init__(self, *, where: str, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        from tensorboardX.proto import event_pb2  # noqa: PLC0415 - an optional extra

        self._events = event_pb2
        self._url = where if "://" in where else None
        self._folder = directory / (FOLDER if self._url else where)
        self._notes = directory / NOTES
        self._clock = clock
        self._file: Any = None
        self._path = Path()
        self._copied_at = -1.0
        self._pause = _LEAST_PAUSE_S
        self._changed = False

    def open(self) -> int:
        """Begin a file; tell the last round that earlier ones have."""
        from tensorboardX.record_writer import RecordWriter  # noqa: PLC0415 - an optional extra

        last = self._noted()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.collective"
        self._path = self._folder / name
        self._file = RecordWriter(str(self._path))
        self._write(file_version="brain.Event:2")
        if last:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=last + 1, session_log=start)
        self._keep(last)
        return last

    def log(self, rows: Sequence[Row]) -> None:
        """Write rounds."""
        from tensorboardX.summary import scalar  # noqa: PLC0415 - an optional extra

        for number, values in rows:
            for name, value in values.items():
                self._write(step=number, summary=scalar(name, value))
        self._keep(rows[-1][0])

    def rest(self) -> None:
        """Copy what is new to the store, when it is time."""
        if self._url and self._changed and self._clock() >= self._copied_at + self._pause:
            self._copy()

    def end(self, status: str, files: Sequence[Path]) -> Iterator[str]:
        """Copy the rest."""
        del status, files
        if self._url:
            self._copy()
            yield self._path.name

    def _copy(self) -> None:
        began = self._clock()
        assert self._url is not None  # noqa: S101 - asked for by whoever has one
        Place(self._url).take(str(self._path), self._path.name, lambda _: None)
        self._changed = False
        self._copied_at = self._clock()
        self._pause = max(_LEAST_PAUSE_S, _SHARE * (self._copied_at - began))

    def _write(self, **members: Any) -> None:
        self._file.write(self._events.Event(wall_time=time.time(), **members).SerializeToString())

    def _keep(self, last: int) -> None:
        self._file.flush()
        write_durably(self._notes, json.dumps({"round": last, "folder": str(self._folder)}).encode())
        self._changed = True

    def _noted(self) -> int:
        try:
            notes = json.loads(self._notes.read_bytes())
            there = notes["folder"] == str(self._folder) and any(self._folder.glob("events.out.tfevents.*.collective"))
            return int(notes["round"]) if there else 0
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0
