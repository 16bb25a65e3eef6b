"""The coordinator's HTTP port: how far it is, for people, for the operator, for probes and for Prometheus.

It shares the event loop with the rounds on purpose: when it answers, the loop lives.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from collective_coordinator import page
from collective_coordinator.board import Board
from collective_coordinator.metrics import Metrics


def application(board: Board, metrics: Metrics, *, rounds: Path) -> web.Application:
    """Build the pages.

    Parameters
    ----------
    board, metrics
        What they tell.
    rounds
        The file of all rounds decided; it may not be there yet.
    """
    content = page.render(namespace=board.namespace, name=board.name)

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=content, content_type="text/html", headers=page.HEADERS)

    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def status(_: web.Request) -> web.Response:
        return web.json_response(board.document())

    async def series(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def history(_: web.Request) -> web.StreamResponse:
        # Answers ranges, so that whoever follows asks only for what is new.
        return web.FileResponse(rounds, headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})

    app = web.Application()
    app.add_routes(
        [
            web.get("/", index),
            web.get("/healthz", ok),
            web.get("/readyz", ok),
            web.get("/status", status),
            web.get("/rounds.jsonl", history),
            web.get("/metrics", series),
        ]
    )
    return app
