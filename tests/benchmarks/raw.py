"""The limit: grpc.aio moving the same bytes in the same parts, and nothing else.

``python -m tests.benchmarks.raw serve PART_BYTES PARTS`` serves ``/raw/Pull`` and ``/raw/Push`` on the port that it
prints; ``python -m tests.benchmarks.raw relay SOURCE SINK TIMES`` moves all parts from one port to the other, so often,
and prints the seconds of each time. Processes of its own, so that nothing that we tune for ourselves helps it or stands
in its way; over channels that are open already, as ours are.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import grpc

PAUSE_S = 0.2
"""Before each run, in which the one before comes to rest."""

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


async def relay(source: int, sink: int, times: int) -> list[float]:
    """Pull from one, push to the other while it comes; the first time does not count."""
    seconds = []
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{source}", options=OPTIONS) as pulled,
        grpc.aio.insecure_channel(f"127.0.0.1:{sink}", options=OPTIONS) as pushed,
    ):
        for _ in range(times + 1):
            await asyncio.sleep(PAUSE_S)
            started = time.perf_counter()
            call = pushed.stream_unary("/raw/Push")()
            async for part in pulled.unary_stream("/raw/Pull")(b""):
                await call.write(part)
            await call.done_writing()
            await call
            seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    command, *numbers = sys.argv[1:]
    if command == "relay":
        print(asyncio.run(relay(*map(int, numbers))))
    else:
        asyncio.run(serve(*map(int, numbers)))
