"""One task under chaos: real programs, a kubelet that restarts them, and whoever breaks them.

Nothing here looks into a program: it reads the files that people read, sends signals, and breaks what lies between.
What must hold is checked in `history`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from nursery import Child, Nursery
from plan import BIG, COORDINATOR, CUT, FULL, KILL, PAUSE, SECOND, Fault, Plan
from proxy import Proxy

from collective_learner.wire import methods
from collective_learner.wire.parts import parse_part

POLL_S = 0.005
FRESH_EVERY = 12
"""One start in so many is an interpreter of its own."""
SMALL_DISK_BYTES = 1 << 20
END_WITHIN_S = 5.0
"""After SIGTERM: 2 s by contract, and what a loaded machine takes."""


class BrokenError(Exception):
    """Something happened that must not; the message says what."""


@dataclass
class Tally:
    """What has been done to the tasks and what they did."""

    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rounds: int = 0
    accepted: int = 0
    left_out: int = 0
    slowest_s: dict[str, float] = field(default_factory=lambda: {"coordinator": 0.0, "learner": 0.0})
    """From SIGTERM to the end."""


class Chaos:
    """Runs one plan.

    Parameters
    ----------
    plan
        What to do.
    directory
        For logs, journals and state.
    nursery
        Starts processes.
    tally
        Counts.
    """

    def __init__(self, plan: Plan, directory: Path, nursery: Nursery, tally: Tally) -> None:
        self.plan = plan
        self.directory = directory
        self.state = directory / "state"
        self.verdicts: list[dict[str, Any]] = []
        """Of all coordinators, as they were given."""
        self.final: dict[int, bytes] = {}
        """By learner, the weights that it holds in the end; those who had the time to take the last."""
        self.seen: list[bytes] = []
        """The lines of rounds.jsonl, as they came."""
        self._nursery = nursery
        self._tally = tally
        self._learners: dict[int, Child] = {}
        self._coordinators: list[Child] = []
        self._proxies: list[Proxy] = []
        self._full = False
        self._fillings = 0
        self._wait_s = dict.fromkeys((COORDINATOR, *range(len(plan.foreign))), 0.0)
        self._disturbed: dict[int, float] = {}
        """By learner, when it was in trouble last."""
        self._last_decided = float("inf")
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._background: set[asyncio.Task[None]] = set()
        self._stamp = (0, 0)

    async def run(self, check: Callable[[Chaos], list[str]]) -> list[str]:
        """Run the task to its verdict, and then ask every learner what it holds.

        Parameters
        ----------
        check
            Called in the end, while the files are there.

        Returns
        -------
        list of str
            What happened that must not.
        """
        plan = self.plan
        bound_s = 90 + plan.rounds * (0.5 if plan.size < BIG else 2) + 6 * len(plan.faults)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._disk())
            for _ in plan.foreign:
                self._proxies.append(await stack.enter_async_context(Proxy()))
            self._configure()
            stack.push_async_callback(self._end)
            for index in range(len(plan.foreign)):
                self._spawn(self._keep_learner(index))
            self._spawn(self._watch())
            breaking = self._spawn(self._break())
            complete = self._spawn(self._keep_coordinator())
            try:
                async with asyncio.timeout(bound_s):
                    await asyncio.wait({complete, self._broken}, return_when=asyncio.FIRST_COMPLETED)
                if self._broken.done():
                    self._broken.result()
                breaking.cancel()
                self._read_rounds()
                await self._ask_learners()
            except TimeoutError:
                return [f"no verdict within {bound_s:g} s, after {len(self.seen)} rounds"]
            except BrokenError as error:
                return [str(error)]
            finally:
                self._tally.rounds += len(self.seen)
                self._tally.left_out += self._log("coordinator").count(" is left out: ")
            return check(self)

    # -- the surroundings

    @contextlib.asynccontextmanager
    async def _disk(self) -> AsyncIterator[None]:
        self.state.mkdir(parents=True)
        if not self.plan.small_disk:
            yield
            return
        size = SMALL_DISK_BYTES + 60 * self.plan.size
        await _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.state))
        try:
            yield
        finally:
            await _run("umount", "--lazy", str(self.state))

    def _configure(self) -> None:
        plan = self.plan
        config = {
            "version": 1,
            "task": {"namespace": "chaos", "name": plan.name, "uid": plan.name},
            "model": {
                "name": "CHAOS",
                "parameters": {
                    "size": plan.size,
                    "journal": str(self.directory),
                    "train_s": plan.train_s,
                },
            },
            "dataLoader": {"name": "CHAOS", "parameters": {}},
            "rounds": plan.rounds,
            "seed": 7,
            "strategy": plan.strategy,
            "learners": [
                {"name": f"learner-{index}", "address": f"127.0.0.1:{proxy.port}", "location": str(index)}
                for index, proxy in enumerate(self._proxies)
            ],
            "policy": {
                "minLearners": plan.min_learners,
                "roundTimeoutSeconds": 2,
                "preRunningDeadlineSeconds": 120,
            },
        }
        (self.directory / "coordinator.json").write_text(json.dumps(config, indent=1))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._broken.done():
            self._broken.set_exception(error)

    async def _end(self) -> None:
        for task in list(self._background):
            task.cancel()
        children = [child for child in (*self._learners.values(), *self._coordinators) if child.running]
        for child in children:
            child.send(signal.SIGKILL)
        if children:
            await asyncio.wait([child.exited for child in children])
        if self._broken.done():
            self._broken.exception()

    def _start(self, what: str, module: str, *arguments: str) -> Child:
        self._tally.starts += 1
        return self._nursery.start(
            module, *arguments, log=self.directory / f"{what}.log", fresh=self._tally.starts % FRESH_EVERY == 0
        )

    def _log(self, what: str) -> str:
        path = self.directory / f"{what}.log"
        return path.read_text() if path.exists() else ""

    # -- the kubelet

    async def _keep_learner(self, index: int) -> None:
        what = f"learner-{index}"
        log, proxy = self.directory / f"{what}.log", self._proxies[index]
        while True:
            offset = log.stat().st_size if log.exists() else 0
            if self.plan.foreign[index]:
                child = self._start(what, "foreign", "--port=0")
            else:
                child = self._start(
                    what,
                    "collective_learner",
                    "--port=0",
                    "--metrics-port=0",
                    "--host=127.0.0.1",
                    "--import=tiny",
                    "--grace=2",
                )
            self._learners[index] = child
            while child.running and proxy.target is None:
                await asyncio.sleep(POLL_S)
                if log.exists() and (found := re.search(rb"listening on [\d.]+:(\d+)", log.read_bytes()[offset:])):
                    proxy.target = int(found[1])
            status = await asyncio.shield(child.exited)
            proxy.target = None
            proxy.reset()
            self._trouble(index)
            if not child.doomed:
                raise BrokenError(f"{what} has ended by itself with status {status}")
            await asyncio.sleep(self._wait_s[index])

    async def _keep_coordinator(self) -> None:
        complete = False
        while not complete:
            complete = await self._coordinate("last-word")
            await asyncio.sleep(0 if complete else self._wait_s[COORDINATOR])

    async def _coordinate(self, last_word: str) -> bool:
        """Run one coordinator; tell whether the task is complete."""
        word = self.directory / last_word
        word.unlink(missing_ok=True)
        full, fillings = self._full, self._fillings
        others = [other for other in self._coordinators if other.running]
        child = self._start(
            "coordinator",
            "collective_coordinator",
            f"--config={self.directory / 'coordinator.json'}",
            f"--state-dir={self.state}",
            "--host=127.0.0.1",
            "--port=0",
            f"--termination-log={word}",
        )
        self._coordinators.append(child)
        status = await asyncio.shield(child.exited)
        self._coordinators.remove(child)
        if status == 0:
            verdict = json.loads(word.read_text())
            self.verdicts.append(verdict)
            if verdict["phase"] == "Complete":
                return True
            if verdict["reason"] != "StorageFailed" or not (full or self._fillings > fillings):
                raise BrokenError(f"verdict {verdict['reason']}: {verdict['message']}")
            # Whoever makes room says so.
            self._tally.faults["storage failures"] += 1
            (self.state / "verdict.json").unlink(missing_ok=True)
            return False
        if status == 1 and (others or self._coordinators) and "in use by another" in self._log("coordinator"):
            return False
        if -status not in child.doomed and not (status == 143 and signal.SIGTERM in child.doomed):
            raise BrokenError(f"a coordinator has ended with status {status}")
        return False

    async def _second_coordinator(self) -> None:
        await self._coordinate(f"last-word-{self._tally.starts}")

    # -- what goes wrong

    async def _break(self) -> None:
        for fault in self.plan.faults:
            await _until(partial(self._reached, fault), every_s=POLL_S if fault.told else POLL_S / 5)
            await asyncio.sleep(fault.delay_s)
            self._spawn(self._apply(fault))

    def _reached(self, fault: Fault) -> bool:
        decision = self.state / "checkpoint" / f"round-{fault.after:08d}"
        return len(self.seen) >= fault.after or (not fault.told and decision.exists())

    async def _apply(self, fault: Fault) -> None:
        match fault.kind:
            case "kill" | "terminate":
                await self._kill(fault)
            case "pause":
                await self._pause(fault)
            case "cut":
                await self._cut(fault)
            case "full disk":
                await self._fill(fault)
            case "second coordinator":
                self._tally.faults[SECOND] += 1
                await self._second_coordinator()

    async def _victim(self, index: int) -> Child:
        while True:
            victims = self._coordinators if index == COORDINATOR else [self._learners[index]]
            for child in victims:
                if child.running and not child.doomed:
                    return child
            await asyncio.sleep(POLL_S)

    async def _kill(self, fault: Fault) -> None:
        child = await self._victim(fault.victim)
        self._trouble(fault.victim)
        self._wait_s[fault.victim] = fault.seconds
        self._tally.faults[f"{fault.kind} {_role(fault.victim)}"] += 1
        if fault.kind == KILL:
            child.send(signal.SIGKILL)
            return
        child.send(signal.SIGTERM)
        child.send(signal.SIGCONT)
        started = time.monotonic()
        await asyncio.wait({child.exited})
        seconds = time.monotonic() - started
        role = _role(fault.victim)
        self._tally.slowest_s[role] = max(self._tally.slowest_s[role], seconds)
        if seconds > END_WITHIN_S:
            raise BrokenError(f"a {role} took {seconds:.1f} s to end after SIGTERM")

    async def _pause(self, fault: Fault) -> None:
        child = await self._victim(fault.victim)
        self._trouble(fault.victim)
        self._tally.faults[f"{PAUSE} {_role(fault.victim)}"] += 1
        child.send(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        child.send(signal.SIGCONT)
        self._trouble(fault.victim)

    async def _cut(self, fault: Fault) -> None:
        proxy = self._proxies[fault.victim]
        self._trouble(fault.victim)
        self._tally.faults[f"{CUT} ({fault.cut})"] += 1
        match fault.cut:
            case "refuse":
                await proxy.refuse(fault.seconds)
            case "stall" | "lose":
                await proxy.stall(fault.seconds, lose=fault.cut == "lose")
            case "delay":
                await proxy.delay(fault.seconds)
            case "snap":
                await proxy.snap(fault.room, fault.seconds)
        self._trouble(fault.victim)

    async def _fill(self, fault: Fault) -> None:
        await _until(lambda: not self._full)
        self._full = True
        self._fillings += 1
        self._tally.faults[FULL] += 1
        filler = self.state / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                space = os.statvfs(self.state)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - fault.room))
            await asyncio.sleep(fault.seconds)
        finally:
            filler.unlink()
            self._full = False

    def _trouble(self, victim: int) -> None:
        if victim != COORDINATOR:
            self._disturbed[victim] = time.monotonic()

    # -- what is seen

    async def _watch(self) -> None:
        while True:
            self._read_rounds()
            await asyncio.sleep(POLL_S)

    def _read_rounds(self) -> None:
        path = self.state / "rounds.jsonl"
        try:
            status = path.stat()
            if (status.st_ino, status.st_size) == self._stamp:
                return
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        self._stamp = (status.st_ino, status.st_size)
        if lines[: len(self.seen)] != self.seen:
            raise BrokenError(f"rounds.jsonl tells another story than before, or less: {len(lines)} lines")
        self.seen = lines
        if len(lines) == self.plan.rounds:
            self._last_decided = min(self._last_decided, time.monotonic())

    async def _ask_learners(self) -> None:
        for index, proxy in enumerate(self._proxies):
            if self._disturbed.get(index, 0.0) < self._last_decided and proxy.target is not None:
                self.final[index] = await weights_of(proxy.target)


async def _until(condition: Callable[[], bool], *, every_s: float = POLL_S) -> None:
    while not condition():  # noqa: ASYNC110 - other processes' files tell nobody
        await asyncio.sleep(every_s)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise BrokenError(f"{' '.join(command)} failed")


async def weights_of(port: int) -> bytes:
    """Ask a learner, past its proxy, for the weights that it holds."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream(methods.path("GetCurrentWeights"))(b"", timeout=30)
        return b"".join([bytes(parse_part(message).payload) async for message in call])


def _role(victim: int) -> str:
    return "coordinator" if victim == COORDINATOR else "learner"
