"""A kubelet's own port, as the API server calls it: for logs, and for ports of pods that people forward.

The API server is the real one, and so is what people run on the other side of it; only what a node would do is played.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import WSMsgType, web

from collective_operator.credentials.certificates import issue, new_authority, signer_of

from .playground import Namespace

_PROTOCOL = "v4.channel.k8s.io"


class Kubelet:
    """One node, on which every forwarded port leads to one port of this machine.

    Parameters
    ----------
    namespace
        Where its pods are.
    port
        Where forwarded ports lead.
    folder
        For its certificate.
    """

    def __init__(self, namespace: Namespace, *, port: int, folder: Path) -> None:
        self._namespace = namespace
        self._port = port
        self._folder = folder
        self.node = f"node-{namespace.name}"
        self.asked: list[str] = []
        """What it was asked for: paths with their queries."""

    @contextmanager
    def serving(self) -> Iterator[Kubelet]:
        loop, started = asyncio.new_event_loop(), threading.Event()
        ports: list[int] = []

        async def serve() -> None:
            app = web.Application()
            app.add_routes(
                [
                    web.get("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                    web.get("/portForward/{namespace}/{pod}", self._forward),
                ]
            )
            runner = web.AppRunner(app, shutdown_timeout=0.5)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls()).start()
            ports.append(runner.addresses[0][1])
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await runner.cleanup()

        def run() -> None:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)

        task = loop.create_task(serve())
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert started.wait(60)
        plane = self._namespace.plane
        plane.request("POST", "/api/v1/nodes", {"metadata": {"name": self.node}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": ports[0]}},
        }
        path = f"/api/v1/nodes/{self.node}"
        plane.request("PATCH", f"{path}/status", {"status": status}, kind="application/merge-patch+json")
        try:
            yield self
        finally:
            plane.request("DELETE", path)
            loop.call_soon_threadsafe(task.cancel)
            thread.join(60)
            loop.close()

    def take(self, pod: str) -> None:
        """Have a pod on this node."""
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        path = f"{self._namespace.core}/pods/{pod}/binding"
        self._namespace.plane.request("POST", path, {"metadata": {"name": pod}, "target": target})

    def _tls(self) -> ssl.SSLContext:
        now, life = datetime.now(UTC), timedelta(days=1)
        authority = signer_of(new_authority("a node", now=now, life=life))
        pair = issue(authority, name="127.0.0.1", usage="server", now=now, life=life)
        certificate, key = self._folder / "kubelet.crt", self._folder / "kubelet.key"
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        return context

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        answer = web.StreamResponse()
        await answer.prepare(request)
        for line in ("round 1/20: accepted", "round 2/20: rejected"):
            await answer.write(f"{line}\n".encode())
        return answer

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        socket = web.WebSocketResponse(protocols=(_PROTOCOL,))
        await socket.prepare(request)
        number = int(request.query["port"]).to_bytes(2, "little")
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + number)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            await socket.send_bytes(b"\1" + str(error).encode())
            await socket.close()
            return socket

        async def back() -> None:
            while chunk := await reader.read(1 << 15):
                await socket.send_bytes(b"\0" + chunk)
            await socket.close()

        returning = asyncio.create_task(back())
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
                writer.write(message.data[1:])
                await writer.drain()
        returning.cancel()
        writer.close()
        return socket
