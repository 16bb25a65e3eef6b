"""What a server's calls wait for while modules are imported: the service behind them.

To import a framework takes seconds, on a cold node minutes. A server that listens only afterwards cannot be told from a
dead one for so long. So it answers at once what needs neither a model nor what modules register; calls that need that
wait here, no longer than their own deadlines, and fail with the error of an import that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Generic, TypeVar

import grpc

from collective_learner.answers import RefusedError, no_model

T = TypeVar("T")

_MAX_WAITING = 64
"""Calls that may wait; each holds what it sent."""


class Preparation(Generic[T]):
    """Waited for by calls on one event loop, ended once and from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._outcome: T | RefusedError | None = None
        self._waiting = 0

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self._over.is_set()

    def end(self, outcome: T | RefusedError) -> None:
        """Give what was waited for, or what all calls fail with; the first word counts."""
        with contextlib.suppress(RuntimeError):  # the loop has gone, and whoever waited with it
            self._loop.call_soon_threadsafe(self._end, outcome)

    def now(self) -> T:
        """Give what was prepared, to a call that needs a model: before, there is none.

        Raises
        ------
        RefusedError
            It is not there.
        """
        if self._outcome is None:
            raise no_model()
        if isinstance(self._outcome, RefusedError):
            raise self._outcome
        return self._outcome

    async def wait(self) -> T:
        """Wait for what is prepared.

        Raises
        ------
        RefusedError
            It will never be there, or too many wait for it already.
        """
        if self._waiting >= _MAX_WAITING:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_WAITING} calls wait for this learner's modules already"
            )
        self._waiting += 1
        try:
            await self._over.wait()
        finally:
            self._waiting -= 1
        return self.now()

    def _end(self, outcome: T | RefusedError) -> None:
        if not self.over:
            self._outcome = outcome
            self._over.set()
