"""Trackers beside a task: each is told of every round by a process of its own, and none can stop or slow a round.

What a tracker does not take is counted, told once in the log, and tried again; at the end each gets some time for the
rest, and what it has not got then is told in the task's last message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collective_coordinator.child import Child, ChildError, child
from collective_coordinator.config import Config
from collective_coordinator.delivery.facts import essentials, flattened
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.history import ROUNDS
from collective_coordinator.metrics import Metrics
from collective_coordinator.results import FILES

LOG = logging.getLogger(__name__)

_SILENT_S = 120.0
_IN_TROUBLE_S = 10.0
"""For the rest at the end, when the last thing was an error."""
_LONGEST_S = 86_400.0
_PAUSE_S, _LAST_PAUSE_S = 30.0, 1.0


@dataclass(kw_only=True)
class Tracker:
    """One of them."""

    name: str
    job: dict[str, Any]
    metrics: Metrics
    trouble: str = ""
    """What went wrong last; empty once it is mended."""
    ending: dict[str, Any] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _running: Child | None = None
    _told: bool = False

    async def run(self) -> None:
        """Keep a follower going until it has done all, or cannot do anything."""
        while True:
            try:
                async with child("collective_coordinator.tracking.follower", self.job) as self._running:
                    if self.ending is not None:
                        self._running.tell(self.ending)
                    if await self._listened(self._running):
                        return
            except (ChildError, OSError) as error:
                self._fail(str(error))
            finally:
                self._running = None
            if self.ended.is_set():
                await asyncio.sleep(_LAST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _PAUSE_S)

    def end(self, status: str, files: list[str]) -> None:
        """Have it told how the task ended."""
        self.ending = {"status": status, "files": files}
        if self._running is not None:
            self._running.tell(self.ending)
        self.ended.set()

    async def _listened(self, follower: Child) -> bool:
        """Take what a follower says; whether there is nothing left to do."""
        while True:
            # Large files go to a tracker at the end, in silence; that time has a bound of its own.
            said = await follower.heard(within_s=_SILENT_S if self.ending is None else _LONGEST_S)
            if "error" in said:
                self._fail(str(said["error"]))
                if said.get("final"):
                    return True
            elif "file" not in said:
                if self.trouble:
                    LOG.info("%s takes rounds again", self.name)
                self.trouble = ""
                if "done" in said:
                    return True

    def _fail(self, why: str) -> None:
        self.metrics.tracking_failed(self.name)
        if not self._told:
            LOG.warning("%s: %s; the rounds are kept, and told when it takes them", self.name, why)
        self._told, self.trouble = True, why


class Tracking:
    """All trackers of a task."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def trouble(self) -> str:
        """Tell what trackers have not got, as the end of a sentence; empty when they have all."""
        return "".join(
            f"; {tracker.name} did not take everything: {tracker.trouble}"
            for tracker in self._trackers
            if tracker.trouble
        )


@contextlib.asynccontextmanager
async def tracking(config: Config, *, state_dir: Path, metrics: Metrics, within_s: float) -> AsyncIterator[Tracking]:
    """Tell the task's trackers of its rounds, while the context lasts.

    Parameters
    ----------
    config, state_dir
        Of the task.
    metrics
        Counts what went wrong.
    within_s
        The most seconds for the rest at the end.

    Yields
    ------
    Tracking
        Says, after the context, what was not taken.
    """
    about = {"namespace": config.namespace, "name": config.name, "uid": config.uid}
    params = flattened(essentials(config))
    job = {"rounds": str(state_dir / ROUNDS), "params": params, **about}
    trackers = [
        Tracker(name=name, job={**job, "tracker": name, "where": where}, metrics=metrics)
        for name, where in config.trackers.items()
    ]
    tasks = [asyncio.create_task(tracker.run(), name=tracker.name) for tracker in trackers]
    try:
        try:
            yield Tracking(trackers)
        except TaskFailedError:
            await _rest(trackers, tasks, "FAILED", [], within_s=within_s)
            raise
        files = [str(path) for name in FILES if (path := state_dir / name).exists()]
        await _rest(trackers, tasks, "FINISHED", files, within_s=within_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _rest(
    trackers: list[Tracker], tasks: list[asyncio.Task[None]], status: str, files: list[str], *, within_s: float
) -> None:
    """Give each tracker time for what it has not got yet; little to one that takes nothing anyway."""
    times = {tracker.name: min(_IN_TROUBLE_S, within_s) if tracker.trouble else within_s for tracker in trackers}
    for tracker in trackers:
        tracker.end(status, files)

    async def bounded(tracker: Tracker, task: asyncio.Task[None]) -> None:
        await asyncio.wait({task}, timeout=times[tracker.name])
        if not task.done():
            tracker.trouble = tracker.trouble or f"it was not done within {times[tracker.name]:g} s"

    await asyncio.gather(*map(bounded, trackers, tasks))
