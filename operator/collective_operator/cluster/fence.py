"""Keeps who may not act any more from sending, and from waiting for what was sent.

Leadership lasts for seconds and is renewed all the time, and a request may take longer than any of its renewals: an
admission webhook that nobody answers is told of after ten seconds or thirty.  So it is not the time that was left when
a request was sent that bounds it, but that there is none left.

A process may be stopped while it connects, and go on with that when it wakes up: so what changes something looks again
when it is about to be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

Remaining = Callable[[], float]
"""Tells for how many seconds one may act if nothing more is heard."""


class Fenced(aiohttp.BytesPayload):
    """What a request carries, and does not carry any more when its time is over."""

    def __init__(self, content: bytes, remaining: Remaining) -> None:
        super().__init__(content)
        self._remaining = remaining

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        """Write it, and the headers before it, to a connection that there is by now."""
        _check(self._remaining)
        await super().write_with_length(writer, content_length)


@asynccontextmanager
async def as_long_as(remaining: Remaining | None) -> AsyncIterator[None]:
    """Run a block as long as that is allowed.

    Parameters
    ----------
    remaining
        For how long it is; None: for ever.

    Raises
    ------
    TimeoutError
        It is not, or no longer.
    """
    if remaining is None:
        yield
        return
    left = _check(remaining)
    loop, bound = asyncio.get_running_loop(), asyncio.timeout(None)
    next_look: asyncio.TimerHandle

    def look() -> None:
        nonlocal next_look
        if (left := remaining()) > 0:
            next_look = loop.call_later(left, look)
        else:
            bound.reschedule(loop.time())

    next_look = loop.call_later(left, look)
    try:
        async with bound:
            yield
    except TimeoutError as error:
        if bound.expired():
            raise TimeoutError("given up, this operator does not lead any more") from error
        raise
    finally:
        next_look.cancel()


def _check(remaining: Remaining) -> float:
    if (left := remaining()) <= 0:
        raise TimeoutError("not sent, this operator does not lead")
    return left
