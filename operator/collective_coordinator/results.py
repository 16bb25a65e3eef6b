"""What a task has come to, to be fetched: its rounds and its model, read only.

Served at the pod's loopback address alone.  A model is worth more than a score, and the coordinator's other port is in
plain text: here comes in only who may forward a port of the pod, which the Kubernetes API server asks of everybody.
Names of files are looked up in a closed list, so nothing that a request says becomes a path.

A program of its own as well (``python -m collective_coordinator.results``), for a volume whose coordinator has gone: it
ends when nobody has asked for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import click
from aiohttp import web

from collective_coordinator.delivery.card import CARD
from collective_coordinator.exports import FORMATS
from collective_coordinator.history import BEST, OPAQUE, ROUNDS, SAFETENSORS

HOST = "127.0.0.1"
FILES = (ROUNDS, SAFETENSORS, OPAQUE, *(name for name in FORMATS.values() if name != SAFETENSORS), BEST + SAFETENSORS,
         BEST + OPAQUE, CARD)  # fmt: skip
"""All that is ever served."""


def application(state_dir: Path, *, asked: Callable[[], None] = lambda: None) -> web.Application:
    """Build the two pages: the list of files, and each file, also from an offset (``Range``).

    Parameters
    ----------
    state_dir
        Where the files are.
    asked
        Called for each request.
    """

    async def listing(_: web.Request) -> web.Response:
        asked()
        found = [{"name": name, "size": size} for name in FILES if (size := _size(state_dir / name)) is not None]
        return web.json_response({"files": found})

    async def content(request: web.Request) -> web.StreamResponse:
        asked()
        name = next((name for name in FILES if name == request.match_info["name"]), None)
        if name is None or _size(state_dir / name) is None:
            raise web.HTTPNotFound(text="no such file\n")
        return web.FileResponse(state_dir / name)

    app = web.Application()
    app.add_routes([web.get("/results", listing), web.get("/results/{name}", content)])
    return app


@contextlib.asynccontextmanager
async def serving_results(app: web.Application, *, port: int) -> AsyncIterator[web.AppRunner]:
    """Serve while the context lasts.

    Yields
    ------
    web.AppRunner
        It knows the port, which the system chose if `port` was 0, and who is connected.

    Raises
    ------
    OSError
        The port is taken.
    """
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=5.0, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield runner
    finally:
        await runner.cleanup()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


@click.command()
@click.option("--state-dir", required=True, type=click.Path(path_type=Path), help="Where the results are.")
@click.option("--port", required=True, type=click.IntRange(0, 65535), help="On the loopback address.")
@click.option("--idle-seconds", default=60.0, show_default=True, help="Ends when nobody has asked for so long.")
def main(state_dir: Path, port: int, idle_seconds: float) -> None:
    """Serve the results in a folder."""
    asyncio.run(_until_idle(state_dir, port=port, idle_s=idle_seconds))


async def _until_idle(state_dir: Path, *, port: int, idle_s: float) -> None:
    asked = asyncio.Event()
    async with serving_results(application(state_dir, asked=asked.set), port=port) as runner:
        click.echo(f"serving {state_dir} on port {runner.addresses[0][1]}")
        while True:
            asked.clear()
            try:
                await asyncio.wait_for(asked.wait(), idle_s)
            except TimeoutError:
                # A large model may take longer than that to be sent.
                if runner.server is None or not runner.server.connections:
                    return


if __name__ == "__main__":
    main()
