"""Follows the file of rounds and tells one tracker of them; a program of its own (see `child`), for `tracking`.

The file is the queue: it is on disk before anybody is told, holds all rounds, and takes no memory while a server is
away. After whatever goes wrong the tracker is asked how far it is, and the file is read from there again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from collective_coordinator.child import Parent, shortened
from collective_coordinator.tracking.mlflow import MlflowSink
from collective_coordinator.tracking.series import RoundsTail, Row
from collective_coordinator.tracking.tensorboard import TensorBoardSink
from collective_learner.data.stores import told

_POLL_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LAST_TRIES = 2
"""At the end somebody waits for the verdict."""


class Sink(Protocol):
    """A tracker."""

    def open(self) -> int:
        """Begin, or go on; tell the last round that is there. Called again after every error."""

    def log(self, rows: Sequence[Row]) -> None:
        """Tell of rounds, in order."""

    def rest(self) -> None:
        """Do what is due while nothing happens."""

    def end(self, status: str, files: Sequence[Path]) -> Iterator[str]:
        """End, and take the files; yields the name of each."""


class Follower:
    """Tells a tracker of rounds until it is told to end."""

    def __init__(self, parent: Parent, sink: Sink, rounds: Path) -> None:
        self._parent = parent
        self._sink = sink
        self._rounds = rounds
        self._tail = RoundsTail(rounds)
        self._last: int | None = None
        self._pause = _FIRST_PAUSE_S

    def follow(self) -> None:
        """Follow to the end."""
        ending: dict[str, Any] | None = None
        faults = 0
        while True:
            wait = _POLL_S
            try:
                goes_on = self._step()
                if ending is not None and not goes_on:
                    self._end(ending)
                    return
                self._pause = _FIRST_PAUSE_S
            except Exception as error:  # noqa: BLE001 - a tracker's library, and its server, raise what they like
                self._last, wait, goes_on = None, self._pause, False
                self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
                faults += ending is not None
                if faults == _LAST_TRIES:
                    self._parent.leave(error=shortened(told(error)), final=True)
                self._parent.answer(error=shortened(told(error)))
            if ending is None:
                ending = self._parent.told(within_s=0 if goes_on else wait)
            elif not goes_on:
                self._parent.told(within_s=min(wait, _POLL_S))

    def _step(self) -> bool:
        """Tell what is new; whether there may be more."""
        if self._last is None:
            self._tail = RoundsTail(self._rounds)
            self._last = self._sink.open()
        rows = self._tail.new(after=self._last)
        if rows:
            self._sink.log(rows)
            self._last = rows[-1][0]
        self._sink.rest()
        self._parent.answer(round=self._last)
        return bool(rows)

    def _end(self, ending: dict[str, Any]) -> None:
        for name in self._sink.end(ending["status"], [Path(path) for path in ending["files"]]):
            self._parent.answer(file=name)


def main() -> None:
    """Do one job: ``{"tracker", "where", "rounds", "namespace", "name", "uid", "params"}``."""
    parent = Parent()
    job = parent.job
    rounds = Path(job["rounds"])
    try:
        sink: Sink
        if job["tracker"] == "mlflow":
            task = {key: job[key] for key in ("namespace", "name", "uid", "params")}
            sink = MlflowSink(url=job["where"], **task)
        else:
            sink = TensorBoardSink(where=job["where"], directory=rounds.parent)
    except ModuleNotFoundError as error:
        extra = job["tracker"].lower()
        parent.leave(error=f"{error}; pip install 'collective-operator[{extra}]' brings it", final=True)
        return
    Follower(parent, sink, rounds).follow()
    parent.leave(done=True)


if __name__ == "__main__":
    main()
