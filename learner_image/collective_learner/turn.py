"""One learner is called by one caller at a time, always from one thread; callers wait for their turn.

The race avoided: a caller that goes away, or whose deadline passes, while the learner trains. Python cannot stop the
training, so the turn stays taken until it has ended, although nobody waits for it any more; then the next has it. The
thread is a daemon of its own and no pool's, since a pool would keep a stopping process waiting for a stuck training;
and frameworks that tie their state to a thread find the same one each time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class LearnerFailedError(Exception):
    """What a learner's own code raised, of whatever kind, `SystemExit` included; it is the cause."""


class Turn:
    """Lets one caller at a time use the learner.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._running: concurrent.futures.Future[Any] | None = None
        self._calls: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="learner", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether the learner's thread is at work."""
        return self._running is not None and not self._running.done()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for the turn and hold it: until the block ends, or until the call that it left behind does."""
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            loop, running = asyncio.get_running_loop(), self._running
            if running is None or running.done():
                self._give_on()
            else:
                running.add_done_callback(lambda _: _tell(loop, self._give_on))

    async def call(self, function: Callable[[], T]) -> T:
        """Call the function in the learner's thread; the turn must be held.

        Raises
        ------
        LearnerFailedError
            It raised.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._running = future
        self._calls.put((future, function))
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        finally:
            if future.done():
                self._running = None  # it holds the result, which may be large

    def _give_on(self) -> None:
        self._running = None
        self._lock.release()

    def _work(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - a learner's own code: whatever it raises must not end us
                failed = LearnerFailedError(f"{type(error).__name__}: {error}")
                failed.__cause__ = error
                future.set_exception(failed)
            else:
                future.set_result(result)
            del future, function  # they hold weights
            result = None


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits
        loop.call_soon_threadsafe(what)
