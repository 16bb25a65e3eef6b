"""A forwarded port: a pod's loopback port as a socket that only this user can open.

What `kubectl port-forward` does, through the API server and the kubelet, so no network policy or address of a pod
matters.  The socket is a file in a folder of this process, and not a port of this machine, which anybody on it could
open.

On the wire, a websocket of the subprotocol `v4.channel.k8s.io` carries one connection: each message begins with a byte
for its channel, 0 for data and 1 for errors, and the first message on each is the port's number, which tells nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from collective_operator.cluster.objects import collection
from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.streams import StreamingApiServer

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_CHUNK = 1 << 15


class Forward:
    """One port of one pod.

    Parameters
    ----------
    api, namespace, pod, port
        Which.
    """

    def __init__(self, api: StreamingApiServer, *, namespace: str, pod: str, port: int) -> None:
        self._api = api
        self._path = f"{collection('Pod', namespace)}/{pod}/portforward"
        self._port = port
        self.failure: ClusterError | None = None
        """Why the last connection came to nothing."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Speak HTTP with the port; each request has a connection of its own."""
        with tempfile.TemporaryDirectory(prefix="collective-") as folder:
            socket = str(Path(folder) / "port")
            server = await asyncio.start_unix_server(self._carry, socket)
            connector = aiohttp.UnixConnector(socket, force_close=True)
            async with server, aiohttp.ClientSession("http://results", connector=connector) as session:
                yield session

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the pod and back."""
        try:
            async with self._api.websocket(
                self._path, resource="pods/portforward", query=[("ports", str(self._port))], protocol=_PROTOCOL
            ) as socket:
                sending = asyncio.create_task(_send(reader, socket))
                try:
                    await self._receive(socket, writer)
                finally:
                    sending.cancel()
                    await asyncio.wait([sending])
        except ClusterError as error:
            self.failure = error
        except ConnectionError:
            pass  # whoever asked has left
        finally:
            writer.close()

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
        begun: set[int] = set()
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, content = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)
                continue
            if channel == _ERROR:
                raise ClusterError(status=0, message=f"pods/portforward: {content.decode(errors='replace').strip()}")
            writer.write(content)
            await writer.drain()


async def _send(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    while chunk := await reader.read(_CHUNK):
        await socket.send_bytes(bytes([_DATA]) + chunk)
