"""Streaming between learners: one proposal to everyone who tests it, while it arrives, in bounded memory.

Three paces meet here: the proposer sends, the disk writes, and every tester reads at its own speed. The very messages
that came in are forwarded from a window of the last few megabytes; a tester that falls out of the window reads from the
spool until it has caught up. The disk slows the proposer down, and so does the fastest tester, since whoever reads from
the spool costs more than who reads from the window; but for a stalled one nobody waits long. Nothing queues: a part
leaves the window when newer ones need the room, and never before it is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass

from collective_coordinator.errors import LearnerError
from collective_coordinator.spool import Spool, StoredWeights, WriteBehind
from collective_learner.wire.parts import PART_BYTES, PartSequence, WireError, encode_part, parse_part

WINDOW_BYTES = 8 << 20
"""Of messages kept in memory for the testers that keep pace."""

PATIENCE_S = 2.0
"""For so long, in all, a proposal is held back for the fastest tester."""

WRITE_AHEAD_BYTES = 3 << 20
"""Of parts that may wait for the disk; with the largest message below WINDOW_BYTES, so that what leaves the window is
on disk."""


class RelayAbortedError(Exception):
    """The proposal broke off: there is nothing to test any more, and it is not the tester's fault."""


@dataclass(frozen=True, slots=True)
class _Slot:
    offset: int
    size: int
    message: bytes


class Relay:
    """One proposal on its way from its source to the spool and to any number of readers.

    Parameters
    ----------
    spool
        Where it is written.
    limit
        The most bytes that it may have.
    writer
        One thread: parts are written in order.
    readers
        Threads that read the spool for those who lag.
    """

    def __init__(self, spool: Spool, *, limit: int, writer: Executor, readers: Executor) -> None:
        self._spool = spool
        self._sequence = PartSequence(limit=limit)
        self._writes = WriteBehind(spool, writer=writer)
        self._readers = readers
        self._window: deque[_Slot] = deque()
        self._window_bytes = 0
        self._aborted = False
        self._declared: bytes | None = None
        self._readers_at: dict[object, int] = {}
        self._read = asyncio.Event()
        self._patience_s = PATIENCE_S
        self._moved = asyncio.Event()
        self.summary: bytes | None = None
        """The serialised TrainingSummary that came with the first part."""

    async def pump(self, messages: AsyncIterator[bytes]) -> None:
        """Take the proposal in, to its end; it is in the spool then, not yet synced to disk.

        Raises
        ------
        LearnerError
            The stream is not one well-formed model.
        OSError
            The disk did not take it.
        """
        try:
            async for message in messages:
                await self._take(message)
            self._sequence.finish()
            await self._writes.settle(0)
        except WireError as error:
            self._abort()
            raise LearnerError(f"sent weights that cannot be used: {error}") from error
        except BaseException:
            self._abort()
            raise
        finally:
            await self._writes.end()

    async def stored(self) -> StoredWeights:
        """Give the whole its name, once it is there; off the event loop.

        Raises
        ------
        LearnerError
            It is not what its sender calls it.
        """
        stored = await asyncio.get_running_loop().run_in_executor(self._readers, self._spool.stored)
        if self._declared is not None and self._declared != stored.digest:
            raise LearnerError("sent weights that cannot be used: they do not have the digest that came with them")
        return stored

    async def begun(self) -> bool:
        """Wait for the first part; False when none will come."""
        while self._sequence.total is None and not self._aborted:
            await self._moved.wait()
        return not self._aborted

    async def _take(self, message: bytes) -> None:
        part = parse_part(message)
        if part.total == 0:
            raise WireError("the weights announce 0 bytes")
        self._sequence.take(part)
        if part.offset == 0:
            self.summary = part.summary
        self._window.append(_Slot(part.offset, part.payload.nbytes, message))
        self._window_bytes += len(message)
        self._declared = part.digest or self._declared
        self._writes.put(part.payload)
        self._wake()
        await self._writes.settle(WRITE_AHEAD_BYTES)
        while self._window_bytes > WINDOW_BYTES and len(self._window) > 1:
            await self._wait_for_a_reader(self._window[0].offset + self._window[0].size)
            self._window_bytes -= len(self._window.popleft().message)

    async def _wait_for_a_reader(self, at: int) -> None:
        """Wait, within bounds, until the fastest reader has come so far."""
        clock = asyncio.get_running_loop().time
        while self._patience_s > 0 and self._readers_at and max(self._readers_at.values()) < at:
            self._read.clear()
            started = clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    await self._read.wait()
            self._patience_s -= clock() - started

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _abort(self) -> None:
        self._aborted = True
        self._wake()

    async def reader(self) -> AsyncGenerator[bytes, None]:
        """Follow the proposal from its first part to its last; each reader at its own pace.

        Raises
        ------
        RelayAbortedError
            The proposal broke off.
        """
        at = 0
        reader = object()
        try:
            while True:
                if self._aborted:
                    raise RelayAbortedError
                self._readers_at[reader] = at
                self._read.set()
                if self._sequence.total is None or at == self._sequence.received:
                    if at == self._sequence.total:
                        return
                    await self._moved.wait()
                elif at < self._window[0].offset:
                    message, size = await self._from_spool(at, self._window[0].offset)
                    yield message
                    at += size
                else:
                    slot = self._slot(at)
                    yield slot.message
                    at += slot.size
        finally:
            self._readers_at.pop(reader, None)
            self._read.set()

    def _slot(self, at: int) -> _Slot:
        # Readers that keep pace are at the end of the window, which is short in any case.
        return next(slot for slot in reversed(self._window) if slot.offset == at)

    async def _from_spool(self, at: int, window: int) -> tuple[bytes, int]:
        """Read up to the window's first part, so that the reader meets the window at the edge of a part."""
        size = min(PART_BYTES, window - at)
        payload = await asyncio.get_running_loop().run_in_executor(self._readers, self._spool.read, at, size)
        total = self._sequence.total or 0
        return encode_part(payload, offset=at, total=total, summary=self.summary if at == 0 else None), size
