"""One JSON object a line on stdout, for programs.

Every object has `event`, one of:

``begin``
    ``name``, ``workdir``, ``rounds``, ``learners``, ``decided`` (rounds that an earlier run left).
``status``
    ``phase``, ``reason``, ``round`` {current, total, accepted}, ``learners`` {desired, ready, failed}; whenever one of
    them changed.
``round``
    ``record``: a line of rounds.jsonl.
``event``
    ``type`` (Normal, Warning), ``reason``, ``message``.
``note``
    ``message``.
``end``
    ``result``: what result.json holds; ``workdir``; ``files``; ``logs``: of the learners that a failure is about,
    each ``process``, ``path``, ``lines``.

Of a task in a cluster, `begin` and `end` have no folder and no files. Members may join; none changes its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from collective_operator.cluster.protocol import TaskEvent
from collective_operator.run.view import Ended


class JsonView:
    """Writes to stdout, each line at once."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def begin(self, *, name: str, workdir: Path | None, rounds: int, learners: int, decided: int) -> None:
        """Write ``begin``."""
        where = {"workdir": str(workdir)} if workdir else {}
        _write("begin", name=name, **where, rounds=rounds, learners=learners, decided=decided)

    def status(self, status: Mapping[str, Any]) -> None:
        """Write ``status``, when it differs from the last one."""
        told = {key: status[key] for key in ("phase", "reason", "round", "learners") if key in status}
        if told != self._last:
            self._last = told
            _write("status", **told)

    def round(self, record: Mapping[str, Any]) -> None:
        """Write ``round``."""
        _write("round", record=record)

    def event(self, event: TaskEvent) -> None:
        """Write ``event``."""
        _write("event", type=event.type, reason=event.reason, message=event.message)

    def note(self, text: str) -> None:
        """Write ``note``."""
        _write("note", message=text)

    def end(self, ended: Ended) -> None:
        """Write ``end``."""
        logs = [{"process": tail.process, "path": str(tail.path), "lines": list(tail.lines)} for tail in ended.logs]
        where = {"workdir": str(ended.workdir), "files": list(ended.files), "logs": logs} if ended.workdir else {}
        _write("end", result=ended.result, **where)

    def close(self) -> None:
        """Nothing is open."""


def _write(kind: str, **members: Any) -> None:
    click.echo(json.dumps({"event": kind, **members}, allow_nan=False))
