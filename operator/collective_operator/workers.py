"""One worker a task: wakes it, never twice at the same time, and again when its time comes.

Events say only that something happened to a task; what, is found out by looking.  So any number of wake-ups during a
turn make one turn more, a wake-up that is lost is made good by the resync, and a task that nobody wakes and that asks
for no time has no worker at all: finished tasks cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.controller import Outcome

_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 60.0

_log = logging.getLogger(__name__)

Turn = Callable[[TaskKey], Awaitable[Outcome]]


@dataclass(slots=True)
class _Worker:
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    busy_since: float | None = None
    task: asyncio.Task[None] | None = None


class Workers:
    """The workers of all tasks.

    Parameters
    ----------
    turn
        Does one turn of a task.
    settle_seconds
        The least time between the starts of two turns of one task.
    """

    def __init__(self, *, turn: Turn, settle_seconds: float) -> None:
        self._turn = turn
        self._settle = settle_seconds
        self._workers: dict[TaskKey, _Worker] = {}

    def wake(self, key: TaskKey) -> None:
        """Have this task looked at soon; call it from the event loop's thread."""
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker()
            worker.task = asyncio.create_task(self._work(key, worker), name=f"task {key}")
            worker.task.add_done_callback(lambda done: self._ended(key, done))
        worker.woken.set()

    def busy_seconds(self) -> float:
        """Tell how long the longest turn has been going on."""
        now = asyncio.get_running_loop().time()
        return max((now - worker.busy_since for worker in self._workers.values() if worker.busy_since), default=0.0)

    def active(self) -> set[TaskKey]:
        """Name the tasks that have a worker: one that turns, or that waits for its time."""
        return set(self._workers)

    async def close(self) -> None:
        """End all workers; a turn that is cut short is made good by whoever comes next."""
        running = [worker.task for worker in self._workers.values() if worker.task]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _work(self, key: TaskKey, worker: _Worker) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            worker.woken.clear()
            started = worker.busy_since = loop.time()
            try:
                outcome = await self._turn(key)
            except ClusterError as error:
                wait: float | None = min(_FIRST_RETRY_SECONDS * 2**failures, _LAST_RETRY_SECONDS)
                failures += 1
                # A conflict is two writers meeting, and what the next look is for.
                _log.log(
                    logging.DEBUG if error.status == 409 else logging.WARNING,
                    "%s: %s; again in %.1f s",
                    key,
                    error,
                    wait,
                )
            else:
                failures, wait = 0, outcome.requeue_after
                if outcome.task is None:
                    wait = None
            finally:
                worker.busy_since = None
            # Nothing is awaited between this look at the event and the end, so that no wake-up falls in between.
            if wait is None and not worker.woken.is_set():
                return
            await _wait(worker.woken, wait, at_most_for_failure=failures > 0)
            await asyncio.sleep(max(0.0, started + self._settle - loop.time()))

    def _ended(self, key: TaskKey, done: asyncio.Task[None]) -> None:
        self._workers.pop(key, None)
        if not done.cancelled() and (error := done.exception()):
            _log.error("the worker of %s has failed; the next event or resync starts it anew", key, exc_info=error)


async def _wait(woken: asyncio.Event, seconds: float | None, *, at_most_for_failure: bool) -> None:
    """Wait for a wake-up or for the time; after a failure for the time alone, or events would undo the backoff."""
    if at_most_for_failure:
        await asyncio.sleep(seconds or 0)
        return
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
