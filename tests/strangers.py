"""What strangers send to an open HTTP port; whoever serves one holds it against this."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

RUBBISH: dict[str, bytes] = {
    "a long URL": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01hello\r\n\r\n",
    "an unknown method": b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is not served": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "a long header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70000 + b"\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    + b"".join(b"X%d: a\r\n" % i for i in range(5000))
    + b"\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "NUL": b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad range": b"GET /rounds.jsonl HTTP/1.1\r\nHost: x\r\nRange: bytes=zz\r\n\r\n",
    "a far range": b"GET /rounds.jsonl HTTP/1.1\r\nHost: x\r\nRange: bytes=999999999999999999999-\r\n\r\n",
    "a bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
    "a bad address": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a character": b"GET /\xed\xa0\x80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no gzip": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "bad accepts": b"GET /metrics?name[]=%ff HTTP/1.1\r\nHost: x\r\nAccept: ;;;q=x\r\nAccept-Encoding: \xff\r\n\r\n",
    "half a request": b"GET /healthz HTT",
}
_PATIENCE_S = 10


async def pester(port: int) -> None:
    """Send all of it, and leave before or after the answer."""
    for sent in RUBBISH.values():
        for waits in (True, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            with suppress(OSError):  # the port may have closed before all was read
                writer.write_eof()
                await asyncio.wait_for(reader.read() if waits else asyncio.sleep(0), _PATIENCE_S)
            writer.transport.abort()


async def besieged(port: int, *, connections: int) -> tuple[bytes, int]:
    """Hold connections that say little, and ask /healthz beside them.

    Returns
    -------
    tuple
        The first line of the answer, and how many of the connections were given up.
    """
    async with AsyncExitStack() as stack:

        async def connect(said: bytes) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(_leave, writer)  # holds the writer, too: a connection ends with its last name
            writer.write(said)
            return reader

        held = [await connect(b"GET /healthz HTTP/1.1\r\n") for _ in range(connections)]
        asking = await connect(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(asking.readline(), 60)
        return answer, sum(await asyncio.gather(*map(_is_over, held)))


def _leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _is_over(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(), 0.5)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True
