"""The baseline of a round's latency: the same RPCs to the same servers, with nothing decided and nothing kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import grpc

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.digest import digest_of
from collective_learner.wire.methods import path
from collective_learner.wire.parts import parse_part


async def bare_rounds(ports: Sequence[int], *, rounds: int) -> list[float]:
    """Propose, test everywhere, accept everywhere; give the seconds of each round but the first."""
    seconds = []
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}")) for port in ports]
        setup = pb.RequestMLSetup(
            dataset_loader_name="BENCH", dataset_loader_parameters='{"location": "0"}', model_arch_name="BENCH"
        ).SerializeToString()
        for channel in channels:
            await channel.unary_unary(path("MLSetup"))(setup)
        for number in range(rounds):
            started = time.perf_counter()
            proposer = channels[number % len(channels)]
            parts = [part async for part in proposer.unary_stream(path("ProposeWeights"))(b"")]
            digest = digest_of(parse_part(part).payload for part in parts)
            await asyncio.gather(*(channel.stream_unary(path("TestWeights"))(iter_(parts)) for channel in channels))
            accept = pb.RequestAcceptWeights(digest=digest).SerializeToString()
            await asyncio.gather(*(channel.unary_unary(path("AcceptWeights"))(accept) for channel in channels))
            seconds.append(time.perf_counter() - started)
    return seconds[1:]


async def iter_(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Give the parts one by one."""
    for part in parts:
        yield part
