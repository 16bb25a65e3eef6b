"""The life of an operator around its leadership: it waits, leads while a block runs, and lets go."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from collective_operator.leadership import Leadership

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """A signal came before this operator led."""


@asynccontextmanager
async def leading(leadership: Leadership) -> AsyncIterator[asyncio.Event]:
    """Wait until this process leads, and renew while the block runs.

    Yields
    ------
    asyncio.Event
        Set when the leadership is lost: the block must end then.  It may be set by who ends it.

    Raises
    ------
    StoppedError
        Nobody ever needed it to lead.
    LeadershipLostError
        After the block: it was lost meanwhile.
    """
    await _acquire(leadership)
    lost = asyncio.Event()
    renewing = asyncio.create_task(leadership.keep(), name="lease")
    renewing.add_done_callback(lambda _: lost.set())
    try:
        yield lost
    finally:
        ended_by_itself = renewing.done()
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            if not ended_by_itself:
                await asyncio.wait({renewing})
        await leadership.release()
    if ended_by_itself:
        renewing.result()


async def _acquire(leadership: Leadership) -> None:
    """Wait, and listen to signals meanwhile: the first process of a container gets none that it does not ask for."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    waits = {asyncio.create_task(leadership.acquire()), asyncio.create_task(stopped.wait())}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in done:
            wait.result()
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    if stopped.is_set():
        await leadership.release()
        raise StoppedError
