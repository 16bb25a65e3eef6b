"""What listens for calls: a gRPC server, and another in its place whenever its certificate is renewed.

A gRPC server's certificate is settled when its port is opened. So when the files change, a second server opens the same
port beside the first, which then takes no more connections and ends once its last call has: calls that go on are not
touched, and whoever calls next connects anew. A call that begins in the milliseconds between may be turned away, as
with any server that goes; it is made again.

The bug avoided: two programs sharing one port in silence. SO_REUSEPORT is gRPC's default, and what lets the second
server in beside the first; so every start looks first whether the port is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from collective_learner.tls import Pems, TlsError, TlsFiles

_logger = logging.getLogger(__name__)

LOOK_S = 10.0
"""Between two looks at the files; a kubelet brings new ones about a minute after they were made."""

_LEAVE_S = 604_800.0
"""What a call may last at most, a week, for whose sake a server that is replaced stays."""

Options = Sequence[tuple[str, Any]]


class Listener:
    """One port, as long as a server serves.

    Parameters
    ----------
    host, port
        Where to listen; port 0 lets the system choose.
    tls
        Keys and certificates; None listens in plain text.
    build
        Makes a server with all its handlers, and these options beside its own.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: TlsFiles | None,
        build: Callable[[Options], grpc.aio.Server],
    ) -> None:
        self.port = port
        self._host = host
        self._tls = tls
        self._build = build
        self._pems: Pems | None = None
        self._server: grpc.aio.Server | None = None
        self._leaving: dict[grpc.aio.Server, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Take the port.

        Raises
        ------
        OSError
            It cannot be had.
        TlsError
            Keys or certificates cannot be used.
        """
        self._pems = self._tls.read() if self._tls else None
        try:
            _try_to_bind(self._host, self.port)  # gRPC alone would not say why
            self._server = self._opened(self._pems)
        except (OSError, RuntimeError) as error:
            raise cannot_listen(self._host, self.port, error) from error

    async def start(self) -> None:
        """Answer calls."""
        assert self._server is not None  # noqa: S101 - open() comes first
        await self._server.start()
        if self._tls is not None:
            self._renewing = asyncio.create_task(self._renew(self._tls), name="renewal of certificates")

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end those that go on after a while; may be called again, to hurry."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        servers = [*self._leaving, *([self._server] if self._server else [])]
        await asyncio.gather(*(server.stop(grace_s) for server in servers))

    def _opened(self, pems: Pems | None) -> grpc.aio.Server:
        server = self._build((("grpc.so_reuseport", 0 if pems is None else 1),))
        address = f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"
        if pems is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, pems.for_server())
        return server

    async def _renew(self, files: TlsFiles) -> None:
        """Look at the files, for ever; what cannot be used leaves what is in force in force."""
        told = ""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                pems = await asyncio.to_thread(files.read)
            except TlsError as error:
                if str(error) != told:
                    told = str(error)
                    _logger.warning("the certificate is not renewed: %s", error)
                continue
            told = ""
            if pems != self._pems:
                await self._replace(pems)

    async def _replace(self, pems: Pems) -> None:
        try:
            server = self._opened(pems)
            await server.start()
        except RuntimeError as error:  # gRPC's word for any port that cannot be opened
            _logger.warning("the certificate is not renewed: %s", error)
            return
        assert self._server is not None  # noqa: S101 - started
        old, self._server, self._pems = self._server, server, pems
        leaving = asyncio.create_task(old.stop(_LEAVE_S), name="end of a server whose certificate was renewed")
        self._leaving[old] = leaving
        leaving.add_done_callback(lambda _: self._leaving.pop(old))
        _logger.info("the certificate is renewed")


def _try_to_bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC: one that just closed is no obstacle
        probe.bind(address)


def cannot_listen(host: str, port: int, error: Exception) -> OSError:
    """Put it into words that a port cannot be had."""
    why = error.strerror if isinstance(error, OSError) else None
    return OSError(errno.EADDRINUSE, f"cannot listen on {host}, port {port}: {why or error}")
