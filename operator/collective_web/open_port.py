"""A plain HTTP port to which anybody may come: bounded in connections, and silent about what strangers send.

aiohttp logs a request that is no HTTP with its traceback, and keeps every connection for as long as the other side
likes.  So a pod that sends rubbish could fill the node's log, and one that only connects could take all file
descriptors, those of watches and rounds among them.  Here the peer's faults are not logged, and of too many
connections the oldest is given up: a probe that comes now is answered, whoever sits there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from aiohttp.http import HttpProcessingError

MOST_CONNECTIONS = 256


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether what is logged is more than a request that cannot be read."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_log = logging.getLogger(__name__)
_log.addFilter(_is_ours)


@contextlib.asynccontextmanager
async def listening(app: web.Application, *, host: str, port: int) -> AsyncIterator[int]:
    """Answer at a port while the context lasts.

    Yields
    ------
    int
        The port, which the system chose if `port` was 0.

    Raises
    ------
    OSError
        The port is taken.
    """
    runner = web.AppRunner(app, access_log=None, logger=_log, shutdown_timeout=0.5)
    await runner.setup()
    try:
        connect = _newest(runner.server)
        server = await asyncio.get_running_loop().create_server(connect, host, port)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _newest(server: web.Server | None) -> Callable[[], asyncio.Protocol]:
    assert server is not None, "the runner is set up"  # noqa: S101 - for the type

    def connect() -> asyncio.Protocol:
        there = [transport for each in server.connections if (transport := each.transport) is not None]
        for oldest in there[: max(0, len(there) + 1 - MOST_CONNECTIONS)]:
            oldest.abort()
        return server()

    return connect
