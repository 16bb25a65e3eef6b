"""Starts programs fast and lets none outlive it: a fork server for the coordinator and the learners.

A thousand restarts would spend most of their time importing. So this process imports everything once, before any
thread and any gRPC object exists, and a start is a fork that runs the program's own ``__main__``, to its own exit. Some
starts are an interpreter of their own all the same (`fresh`), lest the short cut hides something.

It is the only parent: signals go through it, so that none can reach a process that has got a reaped one's number; and
its children die with it, and it with whoever holds the other end of its pipe.

As a program it reads one JSON command a line, ``{"start": id, "module": .., "arguments": [..], "log": path, "fresh":
bool}`` or ``{"signal": id, "number": n}``, and writes ``{"exited": id, "status": n}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRELOADED = (
    "collective_coordinator.cli", "collective_coordinator.program", "collective_coordinator.strategies.fedopt",
    "collective_coordinator.strategies.fedprox", "collective_coordinator.http",
    "collective_learner.cli", "collective_learner.tasks.digits", "collective_learner.tasks.breast_cancer",
    "collective_learner.wire.interface_pb2_grpc", "tiny", "safetensors.numpy", "concurrent.futures.thread",
    "concurrent.futures.process",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1


# -- for the harness


@dataclass(eq=False)
class Child:
    """A process of the nursery."""

    nursery: Nursery
    number: int
    exited: asyncio.Future[int]
    doomed: set[int] = field(default_factory=set)
    """Signals that were sent to end it."""

    @property
    def running(self) -> bool:
        return not self.exited.done()

    def send(self, number: int) -> None:
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.doomed.add(number)
        self.nursery.tell({"signal": self.number, "number": int(number)})


class Nursery:
    """The fork server, seen from the harness; a context."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._starts = 0

    async def __aenter__(self) -> Nursery:
        here = Path(__file__)
        path = os.pathsep.join([str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(here),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listener

    @property
    def running(self) -> int:
        """How many children have not been reaped."""
        return len(self._children)

    def start(self, module: str, *arguments: str, log: Path, fresh: bool = False) -> Child:
        self._starts += 1
        child = Child(self, self._starts, asyncio.get_running_loop().create_future())
        self._children[child.number] = child
        self.tell({"start": child.number, "module": module, "arguments": arguments, "log": str(log), "fresh": fresh})
        return child

    def tell(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            child = self._children.pop(told["exited"])
            child.exited.set_result(told["status"])
        for child in self._children.values():
            child.exited.set_exception(RuntimeError("the nursery has ended"))


# -- as a program


def serve() -> dict[str, Any] | None:
    """Start, signal and reap, until the input ends.

    Returns
    -------
    dict or None
        In a child: what it has to run.
    """
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: dict[int, int] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            _reap(living)
        if 0 not in readable:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            for pid in living:
                os.kill(pid, signal.SIGKILL)
            return None
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            command: dict[str, Any] = json.loads(line)
            if "start" in command:
                parent = os.getpid()
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _become(command, parent)
                    return command
                living[pid] = command["start"]
            else:
                for pid, number in living.items():
                    if number == command["signal"]:
                        os.kill(pid, command["number"])


def _reap(living: dict[int, int]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        told = {"exited": living.pop(pid), "status": os.waitstatus_to_exitcode(status)}
        os.write(1, json.dumps(told).encode() + b"\n")


def _become(command: dict[str, Any], parent: int) -> None:
    """Be a process of one's own: no input, a log for output, and an end with the parent's."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, descriptor in ((0, nothing), (1, log), (2, log)):
        os.dup2(descriptor, target)
    os.closerange(3, 64)
    if command["fresh"]:
        os.execv(sys.executable, [sys.executable, "-m", command["module"], *command["arguments"]])


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    command = serve()
    if command is not None:
        sys.argv = [command["module"], *command["arguments"]]
        runpy.run_module(command["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
