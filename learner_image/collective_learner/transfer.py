"""Weights in and out of an RPC, part by part, with the hashing in a thread beside the network.

A peer that stops sending or reading is given up after a while: it holds the learner's turn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from collective_learner.answers import RefusedError
from collective_learner.mli import Weights
from collective_learner.wire.assembly import Assembly
from collective_learner.wire.codec import EncodedWeights
from collective_learner.wire.parts import PART_BYTES

if TYPE_CHECKING:
    from collective_learner.answers import Context


async def receive(
    context: Context, *, limit: int, stall_s: float, known: EncodedWeights | None = None
) -> tuple[memoryview | Weights, bytes]:
    """Receive a stream of parts.

    Parameters
    ----------
    context
        Of the call.
    limit
        The most bytes that the whole may have.
    stall_s
        Seconds after which a silent peer is given up.
    known
        Weights that may be those that come; let go as soon as they are not, so the caller should not hold them.

    Returns
    -------
    whole
        The bytes, contiguous; or the known weights, if they are the same.
    digest
        Its SHA-256.

    Raises
    ------
    WireError
        The stream is not what it should be.
    RefusedError
        The peer is silent.
    """
    assembly = Assembly(limit=limit, known=known)
    del known
    loop = asyncio.get_running_loop()
    hashing: asyncio.Future[None] | None = None
    while (message := await _read(context, stall_s)) is not grpc.aio.EOF:
        assembly.take(message)
        if assembly.total > PART_BYTES:
            if hashing is not None:
                await hashing
            hashing = loop.run_in_executor(None, assembly.hash_next)
    if hashing is not None:
        await hashing
    buffer, digest = assembly.finish()
    return buffer if assembly.known is None else assembly.known.weights, digest


async def send(context: Context, encoded: EncodedWeights, *, summary: bytes | None = None, stall_s: float) -> None:
    """Send weights as parts; the next one is serialised and hashed in a thread while one goes out.

    Raises
    ------
    RefusedError
        The peer does not read.
    """
    parts = encoded.parts(summary=summary)
    loop = asyncio.get_running_loop()
    threaded = encoded.total > PART_BYTES
    part = next(parts, None)
    while part is not None:
        following = loop.run_in_executor(None, next, parts, None) if threaded else None
        try:
            async with asyncio.timeout(stall_s):
                await context.write(part)
        except TimeoutError:
            raise RefusedError(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"no part of the weights was read for {stall_s:g} seconds"
            ) from None
        part = await following if following is not None else next(parts, None)


async def _read(context: Context, stall_s: float) -> Any:
    try:
        async with asyncio.timeout(stall_s):
            return await context.read()
    except TimeoutError:
        raise RefusedError(
            grpc.StatusCode.DEADLINE_EXCEEDED, f"no part of the weights came for {stall_s:g} seconds"
        ) from None
