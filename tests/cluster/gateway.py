"""A way to the API server that breaks on demand: a proxy that cuts connections, goes silent on them, or answers itself.

It ends the operator's TLS and begins its own, so that it sees requests; what it does not answer itself goes through as
it comes, watches among it.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from collective_operator.credentials.certificates import issue, new_authority, signer_of

from ..ports import free_port
from .control_plane import TOKEN, ControlPlane

_HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding"}
_DAY = timedelta(days=1)


@dataclass
class Answer:
    """What the gateway answers itself to some requests."""

    pattern: str
    """Of ``METHOD /path?query``, searched for."""
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    """How often; counted down."""


class Gateway:
    """A gateway that runs.

    Attributes
    ----------
    kubeconfig
        Logs in through it.
    answers
        What it answers itself, the first that fits.
    seen
        Every request, as ``METHOD /path?query``.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane = plane
        self._port = free_port()
        self._silenced: set[asyncio.BaseTransport] = set()
        self._open: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self.answers: list[Answer] = []
        self.seen: list[str] = []
        self._folder = folder
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew_authority()
        config = json.loads(plane.kubeconfig.read_text())
        place = {"server": f"https://localhost:{self._port}", "certificate-authority": str(folder / "ca.crt")}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps({**config, "clusters": [{"name": "test", "cluster": place}]}))

    @contextmanager
    def running(self) -> Iterator[Gateway]:
        """Serve, in a thread of its own, while the block runs."""
        ready = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(ready),), daemon=True)
        thread.start()
        assert ready.wait(60)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stopped.set)
            thread.join(60)

    def cut(self) -> None:
        """Break every connection that there is."""
        self._loop.call_soon_threadsafe(lambda: [transport.abort() for transport in list(self._open)])

    def silence(self) -> None:
        """Let nothing pass any more on the connections that there are; new ones are as ever, and none is closed."""
        self._loop.call_soon_threadsafe(lambda: self._silenced.update(self._open))

    def renew_authority(self) -> None:
        """Have another authority, in the file that the kubeconfig names, and a certificate of that."""
        now, folder = datetime.now(UTC), self._folder
        authority = new_authority("gateway", now=now, life=_DAY)
        pair = issue(signer_of(authority), name="localhost", usage="server", now=now, life=_DAY)
        for name, content in (("ca.crt", authority.certificate), ("tls.crt", pair.certificate), ("tls.key", pair.key)):
            (folder / name).write_bytes(content)
        self._tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    def answer(self, pattern: str, status: int, body: Any = None, *, times: int = 1, **headers: str) -> Answer:
        """Answer the next requests that fit."""
        made = Answer(pattern, status, body, {key.replace("_", "-"): value for key, value in headers.items()}, times)
        self.answers.append(made)
        return made

    async def _serve(self, ready: threading.Event) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._plane.tls)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as self._session:
            application = web.Application(client_max_size=2**24)
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=self._tls).start()
            ready.set()
            await self._stopped.wait()
            await runner.cleanup()
            held = asyncio.all_tasks() - {asyncio.current_task()}
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._open = {one for one in self._open if not one.is_closing()} | {transport}
        await self._pass(transport)
        asked = f"{request.method} {request.path_qs}"
        self.seen.append(asked)
        for answer in self.answers:
            if answer.times > 0 and re.search(answer.pattern, asked):
                answer.times -= 1
                return web.json_response(answer.body or {}, status=answer.status, headers=answer.headers)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in {*_HOP_BY_HOP, "host"}}
        try:
            async with self._session.request(
                request.method,
                f"{self._plane.url}{request.path_qs}",
                headers={**headers, "Authorization": f"Bearer {TOKEN}"},
                data=await request.read() or None,
                skip_auto_headers=("Content-Type",),
            ) as answered:
                return await self._hand_on(request, answered, transport)
        except aiohttp.ClientError:
            transport.abort()  # one of the two sides has gone
            return web.Response()

    async def _hand_on(
        self, request: web.Request, answered: aiohttp.ClientResponse, transport: asyncio.Transport
    ) -> web.StreamResponse:
        headers = {key: value for key, value in answered.headers.items() if key.lower() not in _HOP_BY_HOP}
        response = web.StreamResponse(status=answered.status, headers=headers)
        await response.prepare(request)
        async for part in answered.content.iter_any():
            await self._pass(transport)
            await response.write(part)
        await self._pass(transport)
        await response.write_eof()
        return response

    async def _pass(self, transport: asyncio.Transport) -> None:
        """Wait for ever, where nothing is to pass."""
        if transport in self._silenced:
            await self._stopped.wait()
