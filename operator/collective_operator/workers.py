"""One worker a task: wakes it, never twice at the same time, and again when its time comes.

Events say only that something happened to a task; what, is found out by looking.  So any number of wake-ups during a
turn make one turn more, a wake-up that is lost is made good by the resync, and a task that nobody wakes and that asks
for no time has no worker at all: finished tasks cost nothing.

Only so many tasks start at the same time, in the order in which they came, and not all of them of one namespace.  The
others' requests would only wait for one another, and a pod that has died would wait behind them all.  A task that has
started while others wait gives way to them: how its pods come up, one after the other, is told once when all have
started, unless there is something to do.  Nor does that wait for a place to start in: a task may have lost its pods
while it ran, and be suspended by now.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.controller import Outcome
from collective_operator.shares import Shares

_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 60.0
_LONGEST_REST_SECONDS = 5.0
_STARTS_AT_ONCE = 32
_STARTS_OF_ONE_NAMESPACE = 24
_FEW_STARTS = 4
"""The last that start: nobody gives way to so few."""
_LONGEST_WAY_SECONDS = 120.0
"""How long a started task gives way at most: the status of its pods may be as old as that while others start."""
_TURNS_A_SECOND = 50
"""Of those that gave way, when nobody waits any more: they are not to come back together."""
_GATHERED = 0.1
"""Of the time between two turns, what passes before one: what happens together, as a pod's end and its going, is seen
together."""
_JITTER = 0.1
"""By how much of itself a wait is shortened at most: what began together is not asked together for ever."""

_log = logging.getLogger(__name__)


class Turn(Protocol):
    """Does one turn of a task."""

    async def __call__(self, key: TaskKey, *, may_start: bool) -> Outcome:
        """Do it; make the pods of a whole task only when that is allowed."""


@dataclass(slots=True)
class _Worker:
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    busy_since: float | None = None
    rests_until: float = 0.0
    urgent: asyncio.Event = field(default_factory=asyncio.Event)
    """What it was woken for cannot wait."""
    task: asyncio.Task[None] | None = None


class _Starts:
    """Lets so many start at a time, in their order, and tells whether there is a crowd of them.

    It is one as soon as somebody may have to wait, and until all but a few have started.
    """

    def __init__(self) -> None:
        self._places = Shares(_STARTS_AT_ONCE, of_one=_STARTS_OF_ONE_NAMESPACE)
        self._unstarted = 0
        self.no_crowd = asyncio.Event()
        self.no_crowd.set()

    @asynccontextmanager
    async def one(self, namespace: str) -> AsyncIterator[asyncio.Task[Any]]:
        """Stand in line; what is yielded is done when one's turn has come, which lasts as long as the block."""
        self._unstarted += 1
        if self._unstarted > _STARTS_OF_ONE_NAMESPACE:
            self.no_crowd.clear()
        turn = asyncio.create_task(self._places.take(namespace))
        try:
            yield turn
        finally:
            if not turn.cancel():
                self._places.give_back(namespace)
            self._unstarted -= 1
            if self._unstarted <= _FEW_STARTS:
                self.no_crowd.set()


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
        self._starts = _Starts()
        self._giving_way = 0
        self._closed = False
        self._workers: dict[TaskKey, _Worker] = {}

    def wake(self, key: TaskKey, *, urgent: bool = False) -> None:
        """Have this task looked at soon; call it from the event loop's thread.

        Parameters
        ----------
        key
            Which.
        urgent
            There may be something to do, and not only to tell: it gives way to nobody.
        """
        if self._closed:
            return
        worker = self._workers.get(key)
        if worker is None:
            worker = self._workers[key] = _Worker()
            worker.task = asyncio.create_task(self._work(key, worker), name=f"task {key}")
            worker.task.add_done_callback(lambda done: _ended(key, done))
        worker.woken.set()
        if urgent:
            worker.urgent.set()

    def busy_seconds(self) -> float:
        """Tell how long the longest turn has been going on."""
        now = asyncio.get_running_loop().time()
        return max((now - worker.busy_since for worker in self._workers.values() if worker.busy_since), default=0.0)

    def __len__(self) -> int:
        """Tell how many tasks have a worker."""
        return len(self._workers)

    def active(self) -> set[TaskKey]:
        """Name the tasks that have a worker: one that turns, or that waits for its time."""
        return set(self._workers)

    async def close(self) -> None:
        """End all workers, and begin none; a turn that is cut short is made good by whoever comes next."""
        self._closed = True
        running = [worker.task for worker in self._workers.values() if worker.task]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _work(self, key: TaskKey, worker: _Worker) -> None:
        try:
            await self._go_on(key, worker)
        finally:
            # Nothing is awaited between the last look at `woken` and this; who wakes one that has ended wakes nobody.
            del self._workers[key]

    async def _go_on(self, key: TaskKey, worker: _Worker) -> None:
        failures, hurried = 0, False
        while True:
            if not hurried:
                await asyncio.sleep(self._settle * _GATHERED)
            try:
                outcome = await self._look(key, worker)
                if outcome.wants_to_start:
                    outcome = await self._start(key, worker)
            except ClusterError as error:
                wait: float | None = min(_FIRST_RETRY_SECONDS * 2**failures, _LAST_RETRY_SECONDS)
                failures += 1
                # A conflict is two writers meeting, and what the next look is for.
                _log.log(
                    logging.DEBUG if error.conflict else logging.WARNING,
                    "%s: %s; again in %.1f s",
                    key,
                    error,
                    wait,
                )
            else:
                failures, wait = 0, outcome.requeue_after
                if outcome.task is None:
                    wait = None
            # What has more to do at once goes straight on; once, or one that never finds an end would never rest.
            hurried = wait == 0 and not hurried
            if hurried:
                continue
            if wait is None and not worker.woken.is_set():
                return
            if wait is not None:
                wait *= 1 - _JITTER * random.random()  # noqa: S311 - no secret
            await _wait(worker.woken, wait, at_most_for_failure=failures > 0)
            await asyncio.sleep(_rest(worker))

    async def _look(self, key: TaskKey, worker: _Worker) -> Outcome:
        worker.woken.clear()
        worker.urgent.clear()
        return await self._busy(key, worker, may_start=False)

    async def _start(self, key: TaskKey, worker: _Worker) -> Outcome:
        """Start when one's turn has come; what is urgent is looked at before, and may leave nothing to start."""
        async with self._starts.one(key.namespace) as turn:
            while not await _first(turn, worker.urgent):
                await asyncio.wait({turn}, timeout=_rest(worker))
                outcome = await self._look(key, worker)
                if not outcome.wants_to_start:
                    return outcome
            outcome = await self._busy(key, worker, may_start=True)
        if outcome.requeue_after != 0 and not self._starts.no_crowd.is_set():
            await self._give_way(worker)
        return outcome

    async def _give_way(self, worker: _Worker) -> None:
        """Let those start that wait for it, for so long; what is urgent cuts it short."""
        self._giving_way += 1
        others = asyncio.create_task(self._others_started())
        try:
            async with asyncio.timeout(_LONGEST_WAY_SECONDS):
                await _first(others, worker.urgent)
        except TimeoutError:
            return
        finally:
            self._giving_way -= 1
            others.cancel()

    async def _others_started(self) -> None:
        await self._starts.no_crowd.wait()
        await asyncio.sleep(random.uniform(0, self._giving_way / _TURNS_A_SECOND))  # noqa: S311 - no secret

    async def _busy(self, key: TaskKey, worker: _Worker, *, may_start: bool) -> Outcome:
        clock = asyncio.get_running_loop().time
        started = worker.busy_since = clock()
        try:
            return await self._turn(key, may_start=may_start)
        finally:
            worker.busy_since = None
            took = clock() - started
            # Where turns take long there is much to do: the next one sees more, and writes once what it sees.
            worker.rests_until = started + max(self._settle, min(2 * took, took + _LONGEST_REST_SECONDS))


def _ended(key: TaskKey, done: asyncio.Task[None]) -> None:
    if not done.cancelled() and (error := done.exception()):
        _log.error("the worker of %s has failed; the next event or resync starts it anew", key, exc_info=error)


def _rest(worker: _Worker) -> float:
    """Tell for how many seconds a worker is still to rest."""
    return max(0.0, worker.rests_until - asyncio.get_running_loop().time())


async def _first(task: asyncio.Task[Any], event: asyncio.Event) -> bool:
    """Wait for either; tell whether it is the task that has come."""
    happens = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, happens}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        happens.cancel()
    return task.done()


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
