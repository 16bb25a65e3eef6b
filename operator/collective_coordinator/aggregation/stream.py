"""Several streams of weights become one while they arrive, all learners in step.

A piece of every learner is folded into one piece of the result, and the result goes on at once: memory holds one piece
a learner, whatever the size of the model. Pieces end where the first learner's parts do: learners that cut alike, as
ours do, are folded from the very messages that came. A learner that sends faster than the slowest is held back by
gRPC's flow control, because nobody reads its next part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from collective_coordinator.aggregation.layout import ITEM_BYTES, Layout, LayoutError, header_bytes, parse_layout
from collective_coordinator.cancelling import cancelled
from collective_learner.wire.parts import (
    PART_BYTES,
    Part,
    PartSequence,
    TooLargeError,
    WireError,
    encode_part,
    parse_part,
)

T = TypeVar("T")

_LEAST_BYTES = 1 << 16
"""Smaller pieces would cost more to pass around than to fold."""

Fold = Callable[[Sequence[memoryview], str, int], bytes]
"""Folds one piece a learner, of one type, that starts at an offset of the data; called in a thread."""


class OffenceError(Exception):
    """One stream cannot be folded with the others.

    Parameters
    ----------
    index
        Which one, in the order that they were given.
    message
        What is wrong with it, for people.
    """

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.message = message


class Inflow:
    """One learner's stream, read in pieces of any size.

    Parameters
    ----------
    index
        Its place among the others, for errors.
    messages
        Serialised WeightsParts.
    limit
        The most bytes that its weights may have.
    """

    def __init__(self, index: int, messages: AsyncIterator[bytes], *, limit: int) -> None:
        self.index = index
        self.summary: bytes | None = None
        """The serialised TrainingSummary that came with the first part."""
        self._messages = messages
        self._sequence = PartSequence(limit=limit)
        self._rest = memoryview(b"")

    async def at_hand(self) -> int:
        """Tell how many bytes the part has that comes next; there must be one.

        Raises
        ------
        OffenceError
            The stream lies about itself, or ends before.
        """
        if not self._rest.nbytes:
            self._rest = (await self._next()).payload
        return self._rest.nbytes

    async def take(self, size: int) -> memoryview:
        """Return the next ``size`` bytes; a view where one part holds them all.

        Raises
        ------
        OffenceError
            The stream lies about itself, or ends before.
        """
        if self._rest.nbytes >= size:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        gathered = bytearray(self._rest)
        while len(gathered) < size:
            payload = (await self._next()).payload
            wanted = size - len(gathered)
            if not gathered and payload.nbytes >= size:
                self._rest = payload[size:]
                return payload[:size]
            gathered += payload[:wanted]
            self._rest = payload[wanted:]
        return memoryview(gathered)

    async def finish(self) -> None:
        """Check that nothing is left over, and read the stream to its end, so that its call ends well."""
        if self._rest.nbytes:
            raise OffenceError(self.index, f"holds {self._rest.nbytes} bytes more than its tensors")
        try:
            async for message in self._messages:
                self._sequence.take(parse_part(message))
                raise OffenceError(self.index, "holds more bytes than its tensors")
            self._sequence.finish()
        except WireError as error:
            raise OffenceError(self.index, str(error)) from error

    async def _next(self) -> Part:
        try:
            async for message in self._messages:
                part = parse_part(message)
                self._sequence.take(part)
                if part.offset == 0:
                    self.summary = part.summary
                return part
            self._sequence.finish()
        except (WireError, TooLargeError) as error:
            raise OffenceError(self.index, str(error)) from error
        raise OffenceError(self.index, "ends before its tensors do")


async def read_layout(inflow: Inflow) -> Layout:
    """Read a stream's header."""
    try:
        length = await inflow.take(8)
        rest = await inflow.take(header_bytes(bytes(length)) - 8)
        return parse_layout(bytes(length) + bytes(rest))
    except LayoutError as error:
        raise OffenceError(inflow.index, str(error)) from error


def require_same(layouts: Sequence[Layout]) -> Layout:
    """Check that all have the tensors of the first; its header becomes the result's.

    Raises
    ------
    OffenceError
        Names the learner and the tensor.  Where the first stands alone against all others, it is the offender.
    """
    first = layouts[0]
    different = [(index, first.difference(other)) for index, other in enumerate(layouts)]
    offenders = [(index, message) for index, message in different if message]
    if len(layouts) > 2 and len(offenders) == len(layouts) - 1:
        raise OffenceError(0, str(layouts[1].difference(first)))
    if offenders:
        index, message = offenders[0]
        raise OffenceError(index, str(message))
    return first


async def folded(
    inflows: Sequence[Inflow], layout: Layout, fold: Fold, *, executor: Executor, piece_bytes: int = PART_BYTES
) -> AsyncIterator[bytes]:
    """Fold streams whose headers have been read and agree, and yield the result as serialised WeightsParts.

    Parameters
    ----------
    inflows
        The streams, each just behind its header.
    layout
        What they agree on.
    fold
        The arithmetic.
    executor
        Where it runs, off the event loop.
    piece_bytes
        The most that is folded at a time, of each learner.
    """
    loop = asyncio.get_running_loop()
    total = layout.total_bytes
    for start in range(0, len(layout.header), piece_bytes):
        yield encode_part(layout.header[start : start + piece_bytes], offset=start, total=total)
    for run in layout.runs():
        begin = run.begin
        while begin < run.end:
            size = min(_whole(await inflows[0].at_hand(), piece_bytes, item=ITEM_BYTES[run.dtype]), run.end - begin)
            pieces = await _together(inflow.take(size) for inflow in inflows)
            result = await loop.run_in_executor(executor, fold, pieces, run.dtype, begin)
            del pieces
            yield encode_part(result, offset=len(layout.header) + begin, total=total)
            begin += size
    await _together(inflow.finish() for inflow in inflows)


async def _together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; when one fails none is left running, since whoever closes a stream must be its only reader."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancelled(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()


def _whole(at_hand: int, most: int, *, item: int) -> int:
    """Choose the size of a piece: what is at hand, unless that is too little to be worth it, in whole elements."""
    wanted = min(at_hand, most) if at_hand >= _LEAST_BYTES else most
    return max(wanted // item, 1) * item
