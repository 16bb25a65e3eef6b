"""One learner is called by one caller at a time, always from one thread; callers wait for their turn.

The race avoided: a caller that goes away, or whose deadline passes, while the learner trains. Python cannot stop the
training: it can only be asked to stop, and the turn stays taken until it has ended, although nobody waits for it any
more; then the next has it. It is asked until it has ended, because the first word may come just before a training
begins and forgets what was said to earlier ones; and no word comes late, where the next training would hear it. The
thread is a daemon of its own and no pool's, since a pool would keep a stopping process waiting for a stuck training;
and frameworks that tie their state to a thread find the same one each time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 10.0


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
        self._ask_to_stop: Callable[[], None] | None = None
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

    async def call(self, function: Callable[[], T], *, ask_to_stop: Callable[[], None] | None = None) -> T:
        """Call the function in the learner's thread; the turn must be held.

        Parameters
        ----------
        function
            What to call.
        ask_to_stop
            Called from a thread of its own, again and again until the function has ended, when the caller goes away or
            `stop` is called.

        Raises
        ------
        LearnerFailedError
            It raised.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._running, self._ask_to_stop = future, ask_to_stop
        self._calls.put((future, function))
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            self.stop()
            raise
        finally:
            if future.done() and self._running is future:
                self._running = None  # it holds the result, which may be large

    def stop(self) -> None:
        """Have what runs asked to stop, if it can be."""
        ask, running = self._ask_to_stop, self._running
        if ask is None or running is None or running.done():
            return
        self._ask_to_stop = None
        ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._running = ended  # the turn is over when nobody asks any more, either
        threading.Thread(target=_ask_until_ended, args=(ask, running, ended), name="stop", daemon=True).start()

    def _give_on(self) -> None:
        self._running = self._ask_to_stop = None
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


def _ask_until_ended(
    ask: Callable[[], None], running: concurrent.futures.Future[Any], ended: concurrent.futures.Future[None]
) -> None:
    pause = _FIRST_PAUSE_S
    while not running.done():
        try:
            ask()
        except BaseException:  # a learner's own code: whatever it raises, its turn must end
            _logger.exception("the learner failed when it was asked to stop")
        concurrent.futures.wait((running,), timeout=pause)
        pause = min(2 * pause, _MAX_PAUSE_S)
    del running  # it may hold a result
    ended.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has gone: nobody waits
        loop.call_soon_threadsafe(what)
