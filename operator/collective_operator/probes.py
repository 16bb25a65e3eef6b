"""The operator's HTTP port: /metrics for Prometheus, /healthz for the kubelet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from collective_web.open_port import listening


class PortTakenError(Exception):
    """The port of /metrics and /healthz cannot be had."""


@contextlib.asynccontextmanager
async def serving(
    *, host: str, port: int, registry: CollectorRegistry, ailment: Callable[[], str | None]
) -> AsyncIterator[None]:
    """Serve while the block runs.

    Parameters
    ----------
    ailment
        Says what is wrong with the operator, when something is that only a restart can heal.

    Raises
    ------
    PortTakenError
        When the port cannot be had.
    """

    async def healthz(_: web.Request) -> web.Response:
        wrong = ailment()
        return web.Response(text=wrong or "ok", status=503 if wrong else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(listening(app, host=host, port=port))
        except OSError as error:
            raise PortTakenError(f"cannot serve on {host}:{port}: {error.strerror or error}") from error
        yield
