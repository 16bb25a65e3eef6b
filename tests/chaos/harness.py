"""One task under chaos: real programs, a kubelet that restarts them, and whoever breaks them.

Nothing here looks into a program: it reads the files that people read, sends signals, and breaks what lies between.
What must hold is checked in `history`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
from breaking import Breaker
from disk import Disk
from kubelet import Kubelet
from nursery import Nursery
from plan import BIG, Fault, Plan
from proxy import Proxy
from tally import POLL_S, BrokenError, Tally

from collective_learner.wire import methods
from collective_learner.wire.parts import parse_part


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
        self.final: dict[int, bytes] = {}
        """By learner, the weights that it holds in the end; those who had the time to take the last."""
        self.seen: list[bytes] = []
        """The lines of rounds.jsonl, as they came."""
        self._tally = tally
        self._proxies: list[Proxy] = []
        self._disk = Disk(self.state)
        self._kubelet = Kubelet(
            plan, directory=directory, disk=self._disk, proxies=self._proxies, nursery=nursery, tally=tally
        )
        self._last_decided = float("inf")
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._background: set[asyncio.Task[None]] = set()
        self._stamp = (0, 0)

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """Of all coordinators, as they were given."""
        return self._kubelet.verdicts

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
        bound_s = 240 + plan.rounds * (0.5 if plan.size < BIG else 2) + 6 * len(plan.faults)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._disk.mounted(plan.size if plan.small_disk else None))
            for _ in plan.foreign:
                self._proxies.append(await stack.enter_async_context(Proxy()))
            self._configure()
            stack.push_async_callback(self._end)
            for index in range(len(plan.foreign)):
                self._spawn(self._kubelet.keep_learner(index))
            self._spawn(self._watch())
            breaking = self._spawn(self._breaker().run())
            complete = self._spawn(self._kubelet.keep_coordinator())
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
                self._tally.left_out += self._kubelet.log("coordinator").count(" is left out: ")
            return check(self)

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

    def _breaker(self) -> Breaker:
        return Breaker(
            self.plan.faults,
            reached=self._reached,
            spawn=self._spawn,
            kubelet=self._kubelet,
            proxies=self._proxies,
            disk=self._disk,
            tally=self._tally,
        )

    def _reached(self, fault: Fault) -> bool:
        decision = self.state / "checkpoint" / f"round-{fault.after:08d}"
        return len(self.seen) >= fault.after or (not fault.told and decision.exists())

    # -- what goes on beside

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
        await self._kubelet.end()
        if self._broken.done():
            self._broken.exception()

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
            undisturbed = self._kubelet.disturbed.get(index, 0.0) < self._last_decided
            if undisturbed and proxy.target is not None and not self._left_behind(index):
                self.final[index] = await weights_of(proxy.target)

    def _left_behind(self, index: int) -> bool:
        """Tell whether the coordinator's last word of a learner is that it lost it: one that stood still at the end."""
        words = re.findall(rf"\blearner-{index} is (lost|not ready|ready)\b", self._kubelet.log("coordinator"))
        return bool(words) and words[-1] != "ready"


async def weights_of(port: int) -> bytes:
    """Ask a learner, past its proxy, for the weights that it holds."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream(methods.path("GetCurrentWeights"))(b"", timeout=60)
        return b"".join([bytes(parse_part(message).payload) async for message in call])
