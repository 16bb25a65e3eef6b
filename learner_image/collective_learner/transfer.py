"""Weights in and out of an RPC, part by part.

All of it happens on the event loop: what is done with a part (one copy, a fraction of a millisecond) takes less than
handing it to a thread and back would.

A peer that stops sending or reading is given up after a while: it holds the learner's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc

from collective_learner.answers import RefusedError
from collective_learner.wire.assembly import Assembly
from collective_learner.wire.codec import EncodedWeights

if TYPE_CHECKING:
    from collective_learner.calls import Context


async def receive(context: Context, *, limit: int, stall_s: float) -> tuple[memoryview, bytes | None]:
    """Receive a stream of parts.

    Parameters
    ----------
    context
        Of the call.
    limit
        The most bytes that the whole may have.
    stall_s
        Seconds after which a silent peer is given up.

    Returns
    -------
    whole
        The bytes, contiguous.
    digest
        What their sender says they are called, unchecked; None when it says nothing.

    Raises
    ------
    WireError
        The stream is not what it should be.
    RefusedError
        The peer is silent.
    """
    assembly = Assembly(limit=limit)
    while (message := await _read(context, stall_s)) is not grpc.aio.EOF:
        assembly.take(message)
    return assembly.finish()


async def send(context: Context, encoded: EncodedWeights, *, summary: bytes | None = None, stall_s: float) -> None:
    """Send weights as parts.

    Raises
    ------
    RefusedError
        The peer does not read.
    """
    await send_parts(context, encoded.parts(summary=summary), stall_s=stall_s)


async def send_parts(context: Context, parts: Iterable[bytes], *, stall_s: float) -> None:
    """Send parts, one by one.

    Raises
    ------
    RefusedError
        The peer does not read.
    """
    for part in parts:
        try:
            async with asyncio.timeout(stall_s):
                await context.write(part)
        except TimeoutError:
            raise RefusedError(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"no part of the weights was read for {stall_s:g} seconds"
            ) from None


async def _read(context: Context, stall_s: float) -> Any:
    try:
        async with asyncio.timeout(stall_s):
            return await context.read()
    except TimeoutError:
        raise RefusedError(
            grpc.StatusCode.DEADLINE_EXCEEDED, f"no part of the weights came for {stall_s:g} seconds"
        ) from None
