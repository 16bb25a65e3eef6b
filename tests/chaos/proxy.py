"""The network between the coordinator and one learner, as a TCP proxy that can be cut, stalled or made late.

Its own port never changes, as a pod's name does not; where the learner listens now, it is told.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Self

_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: a close sends RST, as a dead host's kernel does."""


class Proxy:
    """Forwards connections; a context.

    Attributes
    ----------
    port
        Where the coordinator connects to.
    target
        Where the learner listens; None while it does not.
    """

    def __init__(self) -> None:
        self.target: int | None = None
        self.port = 0
        self._refusing = False
        self._stalled = False
        self._pairs: set[_Pair] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        for task in self._connecting:
            task.cancel()

    def reset(self) -> None:
        """Break every connection."""
        for pair in list(self._pairs):
            pair.abort()

    async def refuse(self, seconds: float) -> None:
        """Break every connection and take no new one for a while."""
        self._refusing = True
        self.reset()
        await asyncio.sleep(seconds)
        self._refusing = False

    async def stall(self, seconds: float, *, lose: bool) -> None:
        """Let nothing pass for a while; then what was kept back passes, or every connection breaks (`lose`)."""
        self._stalled = True
        for pair in self._pairs:
            pair.hold()
        await asyncio.sleep(seconds)
        self._stalled = False
        for pair in list(self._pairs):
            pair.abort() if lose else pair.release()

    async def delay(self, seconds: float) -> None:
        """Keep back what the present connections carry, while new ones pass: it comes late, after newer calls."""
        held = set(self._pairs)
        for pair in held:
            pair.hold()
        await asyncio.sleep(seconds)
        for pair in held:
            pair.release()

    async def snap(self, after_bytes: int, seconds: float) -> None:
        """Break the connection that carries so many bytes from the learner first, if one does in time."""
        for pair in self._pairs:
            pair.budget = after_bytes
        await asyncio.sleep(seconds)
        for pair in self._pairs:
            pair.budget = None

    def opened(self, client: _Side) -> None:
        if self._refusing or self.target is None:
            client.break_off()
            return
        pair = _Pair(self, client)
        if self._stalled:
            pair.hold()
        task = asyncio.create_task(self._connect(pair, self.target))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, pair: _Pair, target: int) -> None:
        self._pairs.add(pair)
        try:
            await asyncio.get_running_loop().create_connection(lambda: pair.server, "127.0.0.1", target)
        except OSError:
            pair.abort()

    def closed(self, pair: _Pair) -> None:
        self._pairs.discard(pair)


class _Pair:
    """One connection through the proxy; `None` in a queue is the end of a side."""

    def __init__(self, proxy: Proxy, client: _Side) -> None:
        self.budget: int | None = None
        self.client, self.server = client, _Side(proxy)
        self.client.pair = self.server.pair = self
        self._proxy = proxy
        self._held = False

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        self.flush()

    def abort(self) -> None:
        for side in (self.client, self.server):
            side.queue.clear()
            side.break_off()
        self._proxy.closed(self)

    def flush(self) -> None:
        if self._held:
            return
        for source, sink in ((self.client, self.server), (self.server, self.client)):
            while source.queue and sink.transport is not None:
                data = source.queue.pop(0)
                if data is None:
                    sink.transport.close()
                    self._proxy.closed(self)
                    continue
                sink.transport.write(data)
                if source is self.server and self.budget is not None:
                    self.budget -= len(data)
                    if self.budget < 0:
                        self.abort()
                        return


class _Side(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, proxy: Proxy) -> None:
        self.transport: asyncio.Transport | None = None
        self.pair: _Pair | None = None
        self.queue: list[bytes | None] = []
        self._proxy = proxy
        self._broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._broken:
            self.break_off()
        elif self.pair is None:
            self._proxy.opened(self)
        else:
            self.pair.flush()

    def data_received(self, data: bytes) -> None:
        if self.pair is not None:
            self.queue.append(data)
            self.pair.flush()

    def connection_lost(self, error: Exception | None) -> None:
        if self.pair is not None and not self._broken:
            self.queue.append(None)
            self.pair.flush()

    def break_off(self) -> None:
        self._broken = True
        if self.transport is not None and not self.transport.is_closing():
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self.transport.abort()
