"""Programs beside the coordinator, for what must not hang it: stores and trackers, through other people's libraries.

Such a library waits for servers as long as it likes, in threads that nobody can end, and takes memory that the rounds
need. In a process of its own it can be killed whenever it says nothing for too long, and is gone when its work is.

A child reads its job as one line of JSON from stdin, then what it is told later, and answers in lines of JSON. The end
of stdin is the end of the coordinator, however that came, and ends the child too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

_MOST_TOLD = 300


class ChildError(Exception):
    """The child ended, or said nothing for too long."""


class Child:
    """A child that runs, from its parent's side."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell it something; one that is gone does not hear it."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(_line(message))

    async def heard(self, *, within_s: float) -> dict[str, Any]:
        """Wait for its next answer.

        Raises
        ------
        ChildError
            There is none.
        """
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), within_s)
            answer = json.loads(line) if line else None
        except TimeoutError:
            raise ChildError(f"there was no answer for {within_s:.3g} s") from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ChildError(f"{self._process.pid} ended, or said what makes no sense; the log may tell more")
        return answer


@contextlib.asynccontextmanager
async def child(module: str, job: Mapping[str, Any]) -> AsyncIterator[Child]:
    """Run a module of this package with a job, while the context lasts; what is left of it then is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        started = Child(process)
        started.tell(job)
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Parent:
    """The coordinator, from a child's side: what it says, and a way to answer."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = json.loads(sys.stdin.readline())
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # What a library prints must not be taken for an answer.
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        threading.Thread(target=self._listen, daemon=True).start()

    def told(self, *, within_s: float) -> dict[str, Any] | None:
        """Wait for what it says next; None when it says nothing for so long."""
        try:
            return self._told.get(timeout=within_s)
        except queue.Empty:
            return None

    def answer(self, **members: Any) -> None:
        """Say something."""
        self._answers.write(json.dumps(members) + "\n")
        self._answers.flush()

    def leave(self, **members: Any) -> None:
        """Say the last thing, and end at once: libraries' threads are waited for by nobody."""
        self.answer(**members)
        os._exit(0)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._told.put(json.loads(line))
        os._exit(1)


def shortened(text: str) -> str:
    """Cut a message of a library to what a status may hold, and to one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _MOST_TOLD else f"{flat[: _MOST_TOLD - 3]}..."


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
