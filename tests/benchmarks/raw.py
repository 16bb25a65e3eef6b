"""The limit: grpc.aio moving the same bytes in the same parts, and nothing else.

``python -m tests.benchmarks.raw PART_BYTES PARTS`` serves ``/raw/Pull`` and ``/raw/Push`` on the port that it prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import grpc

OPTIONS = (("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20))


async def serve(part_bytes: int, parts: int) -> None:
    """Serve until standard input ends."""
    part = bytes(part_bytes)

    async def pull(_: bytes, context: object) -> AsyncIterator[bytes]:
        for _number in range(parts):
            yield part

    async def push(stream: AsyncIterator[bytes], context: object) -> bytes:
        received = [part async for part in stream]  # a model that has arrived is there
        return str(len(received)).encode()

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "raw",
                {
                    "Pull": grpc.unary_stream_rpc_method_handler(pull, None, None),
                    "Push": grpc.stream_unary_rpc_method_handler(push, None, None),
                },
            ),
        )
    )
    print([server.add_insecure_port("127.0.0.1:0")], flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


async def relay(source: int, sinks: list[int]) -> None:
    """Pull from one, push to the others while it comes."""
    async with contextlib.AsyncExitStack() as stack:
        pulled, *pushed = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS))
            for port in (source, *sinks)
        ]
        calls = [channel.stream_unary("/raw/Push")() for channel in pushed]
        async for part in pulled.unary_stream("/raw/Pull")(b""):
            await asyncio.gather(*(call.write(part) for call in calls))
        for call in calls:
            await call.done_writing()
            await call


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
