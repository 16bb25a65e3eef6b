"""Starts the programs of one task, and starts them again when they end, as a kubelet does.

Who ends without having been told to, or gives a verdict that nothing explains, has broken a rule.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

from disk import Disk
from nursery import Child, Nursery
from plan import COORDINATOR, Plan
from proxy import Proxy
from tally import POLL_S, BrokenError, Tally

FRESH_EVERY = 12
"""One start in so many is an interpreter of its own."""


class Kubelet:
    """Keeps one task's programs running.

    Parameters
    ----------
    plan
        Of the task.
    directory
        For logs; the coordinator's configuration is there.
    disk
        That the state lies on.
    proxies
        One before each learner; they are told where it listens.
    nursery
        Starts processes.
    tally
        Counts.

    Attributes
    ----------
    verdicts
        Of all coordinators, as they were given.
    wait_s
        By role, for how long whoever ends next stays away.
    disturbed
        By learner, when it was in trouble last.
    """

    def __init__(
        self, plan: Plan, *, directory: Path, disk: Disk, proxies: list[Proxy], nursery: Nursery, tally: Tally
    ) -> None:
        self.verdicts: list[dict[str, Any]] = []
        self.wait_s = dict.fromkeys((COORDINATOR, *range(len(plan.foreign))), 0.0)
        self.disturbed: dict[int, float] = {}
        self._plan = plan
        self._directory = directory
        self._disk = disk
        self._proxies = proxies
        self._nursery = nursery
        self._tally = tally
        self._learners: dict[int, Child] = {}
        self._coordinators: list[Child] = []

    async def keep_learner(self, index: int) -> None:
        """Run a learner for ever."""
        what = f"learner-{index}"
        log, proxy = self._directory / f"{what}.log", self._proxies[index]
        while True:
            offset = log.stat().st_size if log.exists() else 0
            child = self._learners[index] = self._start_learner(what, foreign=self._plan.foreign[index])
            while child.running and proxy.target is None:
                await asyncio.sleep(POLL_S)
                if log.exists() and (found := re.search(rb"listening on [\d.]+:(\d+)", log.read_bytes()[offset:])):
                    proxy.target = int(found[1])
            status = await asyncio.shield(child.exited)
            proxy.target = None
            proxy.reset()
            self.trouble(index)
            if not child.doomed:
                raise BrokenError(f"{what} has ended by itself with status {status}")
            await asyncio.sleep(self.wait_s[index])

    async def keep_coordinator(self) -> None:
        """Run the coordinator until the task is complete."""
        complete = False
        while not complete:
            complete = await self._coordinate("last-word")
            await asyncio.sleep(0 if complete else self.wait_s[COORDINATOR])

    async def second_coordinator(self) -> None:
        """Run one more beside whoever runs, once."""
        await self._coordinate(f"last-word-{self._tally.starts}")

    async def victim(self, index: int) -> Child:
        """Wait until there is one to break."""
        while True:
            victims = self._coordinators if index == COORDINATOR else [self._learners[index]]
            for child in victims:
                if child.running and not child.doomed:
                    return child
            await asyncio.sleep(POLL_S)

    def trouble(self, victim: int) -> None:
        """Note that somebody is in trouble now."""
        if victim != COORDINATOR:
            self.disturbed[victim] = time.monotonic()

    async def end(self) -> None:
        """Kill whoever is left."""
        children = [child for child in (*self._learners.values(), *self._coordinators) if child.running]
        for child in children:
            child.send(signal.SIGKILL)
        if children:
            await asyncio.wait([child.exited for child in children])

    def log(self, what: str) -> str:
        """Read what a program has said."""
        path = self._directory / f"{what}.log"
        return path.read_text() if path.exists() else ""

    async def _coordinate(self, last_word: str) -> bool:
        """Run one coordinator; tell whether the task is complete."""
        word = self._directory / last_word
        word.unlink(missing_ok=True)
        full, fillings = self._disk.full, self._disk.fillings
        others = [other for other in self._coordinators if other.running]
        child = self._start(
            "coordinator",
            "collective_coordinator",
            f"--config={self._directory / 'coordinator.json'}",
            f"--state-dir={self._directory / 'state'}",
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
            if verdict["reason"] != "StorageFailed" or not (full or self._disk.fillings > fillings):
                raise BrokenError(f"verdict {verdict['reason']}: {verdict['message']}")
            # Whoever makes room says so.
            self._tally.faults["storage failures"] += 1
            (self._directory / "state" / "verdict.json").unlink(missing_ok=True)
            return False
        if status == 1 and (others or self._coordinators) and "in use by another" in self.log("coordinator"):
            return False
        if -status not in child.doomed and not (status == 143 and signal.SIGTERM in child.doomed):
            raise BrokenError(f"a coordinator has ended with status {status}")
        return False

    def _start_learner(self, what: str, *, foreign: bool) -> Child:
        if foreign:
            return self._start(what, "foreign", "--port=0")
        options = ("--port=0", "--metrics-port=0", "--host=127.0.0.1", "--import=tiny", "--grace=2")
        return self._start(what, "collective_learner", *options)

    def _start(self, what: str, module: str, *arguments: str) -> Child:
        self._tally.starts += 1
        return self._nursery.start(
            module, *arguments, log=self._directory / f"{what}.log", fresh=self._tally.starts % FRESH_EVERY == 0
        )
