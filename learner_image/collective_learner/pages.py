"""The plain HTTP port beside the wire: /metrics for Prometheus, /healthz and /readyz for a kubelet's probes.

Plain, because neither has a certificate of the task (a kubelet's own gRPC probe speaks no TLS at all), and nothing that
is told here is anybody's data. The threads that answer are not those of the wire, so that probes ask the event loop, as
a call would: when it answers, the loop lives.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_ANSWER_S = 4.0
"""For the loop to answer: less than the probe's own patience, so that a probe is told why."""
_REQUEST_S = 10.0
"""For each part of a request: whoever connects and says nothing holds no thread."""
_MOST_CONNECTIONS = 64
"""Each has a thread.  Of more, the oldest is given up: a probe that comes now is answered, whoever sits there."""


def serve_pages(
    host: str, port: int, *, metrics: WSGIApplication, probes: Mapping[str, Callable[[], bool]]
) -> tuple[WSGIServer, threading.Thread]:
    """Answer in a background thread.

    Parameters
    ----------
    metrics
        Answers every page that is no probe's.
    probes
        Tell by the page whether all is well; asked in the event loop that runs now.

    Raises
    ------
    OSError
        The port cannot be had.
    """
    loop = asyncio.get_running_loop()

    def ask(probe: Callable[[], bool]) -> tuple[bool, str]:
        asked: concurrent.futures.Future[bool] = concurrent.futures.Future()
        try:
            loop.call_soon_threadsafe(lambda: asked.set_result(probe()))
            return (True, "ok") if asked.result(_ANSWER_S) else (False, "not serving")
        except TimeoutError:
            return False, "busy: a call holds the interpreter's lock"
        except RuntimeError:
            return False, "stopped"

    def pages(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        probe = probes.get(environ.get("PATH_INFO", ""))
        if probe is None:
            return metrics(environ, start_response)
        well, word = ask(probe)
        said = f"{word}\n".encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))]
        start_response("200 OK" if well else "503 Service Unavailable", headers)
        return [said]

    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    server = _Server(address, family)
    server.set_app(pages)
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    return server, thread


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128  # with the default of 5, a probe beside a few others waits a second for its turn

    def __init__(self, address: Any, family: socket.AddressFamily) -> None:
        self.address_family = family
        self._open: dict[socket.socket, None] = {}
        self._opening = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the look for this machine's name, which can take seconds where names are not resolved."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; the oldest ends when there are too many."""
        with self._opening:
            self._open[request] = None
            while len(self._open) > _MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # it has gone by itself
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Forget it, too."""
        with self._opening:
            self._open.pop(request, None)
        super().close_request(request)


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def handle(self) -> None:
        """Answer one request, or leave who sends none."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds."""
