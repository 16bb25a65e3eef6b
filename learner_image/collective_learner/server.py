"""The learner's gRPC server: its life from listening to stopping.

It turns in a thread of its own. The main thread imports the learner's modules meanwhile, as it would in any program:
there they may do what only a main thread may, and the server answers while a framework is being loaded.

The bugs avoided: heartbeats that keep a stopping server alive, a stuck training that keeps its process, and an import
that keeps it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from collective_learner.answers import RefusedError
from collective_learner.factory import MliFactory
from collective_learner.handlers import handlers
from collective_learner.health import NAME as HEALTH
from collective_learner.health import Health
from collective_learner.listener import Listener, Options, cannot_listen
from collective_learner.metrics import LearnerMetrics
from collective_learner.preparation import Preparation
from collective_learner.signals import Signals
from collective_learner.status import StatusStreams
from collective_learner.tls import TlsFiles, refusal
from collective_learner.wire.methods import NUMPY_PICKLE, SAFETENSORS, SERVICE, WEIGHTS_FORMATS
from collective_learner.wire.parts import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collective_learner.calls import Context
    from collective_learner.service import LearnerService

_logger = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES = 16 << 30
"""What a server allows when it is not told; the model's own size is the limit in practice."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),  # GetCurrentModel answers with one message
)


_UNPREPARED_GRACE_S = 1.0
"""The grace of a server behind which there is no learner yet: nobody waits for anything that it could finish."""
_UNPREPARED_EXIT_S = 1.5
"""After a signal, for an import to end by itself, and the process with it."""


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Background:
    """A server that turns in a thread of its own."""

    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    preparation: Preparation[LearnerService]
    metrics: LearnerMetrics
    prepared: threading.Event = field(default_factory=threading.Event)
    """What prepares has returned, with whatever result."""

    def end(self) -> None:
        """Have it stop, from any thread."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.stop.set)


class GRPCServer:
    """Serves the learners that a factory makes.

    Parameters
    ----------
    mli_factory
        Makes the learner that MLSetup asks for.
    port
        Where to listen; 0 lets the system choose, see `port` after the start.
    host
        The address to listen on.
    metrics_port
        Where Prometheus finds /metrics and a kubelet /healthz and /readyz, over plain HTTP; None for nowhere.
    max_weights_bytes
        The most bytes that weights may have, however large the model is.
    grace_s
        Seconds within which a stopping server has gone, finished or not.
    stall_s
        Seconds after which a stream of weights whose peer neither sends nor reads is given up.
    weights_format
        What weights travel in: ``"safetensors"``, or ``"numpy-pickle"`` for orchestrators of the original colearn.
    tls
        Keys and certificates: who calls must show one that the authority has signed. They are read anew when they
        change. None serves everybody, in plain text.
    tls_clients
        With ``tls``, the names of which a caller's certificate must have one; empty for any.

    Raises
    ------
    ValueError
        The format is neither; or names of clients are given, and no certificates to find them in.
    """

    def __init__(
        self,
        mli_factory: MliFactory,
        port: int = 9995,
        host: str = "0.0.0.0",  # noqa: S104 - other pods call it
        *,
        metrics_port: int | None = None,
        max_weights_bytes: int = MAX_WEIGHTS_BYTES,
        grace_s: float = 20.0,
        stall_s: float = 60.0,
        weights_format: str = SAFETENSORS,
        tls: TlsFiles | None = None,
        tls_clients: Collection[str] = (),
    ) -> None:
        if weights_format not in WEIGHTS_FORMATS:
            raise ValueError(f"weights_format: {weights_format!r}, {' or '.join(map(repr, WEIGHTS_FORMATS))} is needed")
        if tls_clients and tls is None:
            raise ValueError(f"tls_clients: {list(tls_clients)!r} needs tls, since names stand in certificates")
        self._weights_format = weights_format
        self.port = port
        """The port that is listened on."""
        self._factory = mli_factory
        self._host = host
        self._metrics_port = metrics_port
        self._max_weights_bytes = max_weights_bytes
        self._grace_s = grace_s
        self._stall_s = stall_s
        self._tls = tls
        self._tls_clients = tuple(tls_clients)
        self._service: LearnerService | None = None
        # Nothing with a lock before the start: under some start methods a server is pickled into its process.
        self._background: tuple[_Background, concurrent.futures.Future[None]] | None = None

    @property
    def stuck(self) -> bool:
        """Whether the learner's own code still runs, also after the server has stopped."""
        return self._service is not None and self._service.busy

    def run(self, prepare: Callable[[], None] = _nothing) -> None:
        """Serve until SIGTERM or SIGINT; a second signal ends what the first lets finish.

        Parameters
        ----------
        prepare
            What makes the factory complete, such as importing the modules that register models. It is called in this
            thread, the main one, while the server answers already: calls that need the factory wait for it, and fail
            with what it raises, which ends the server and comes out here. Nothing can interrupt an import: one that
            goes on for a second and a half after a signal ends with the process, whose status is then 128 and the
            signal's number.

        Raises
        ------
        OSError
            A port cannot be had.
        TlsError
            Keys or certificates cannot be used.
        """
        with Signals() as signals:
            server, ended = self._begin(signals)
            try:
                self._prepare(server, prepare)
                signals.insist()
            finally:
                ended.result()

    def start(self) -> None:
        """Serve in a background thread; returns when listening.

        Raises
        ------
        OSError
            A port cannot be had.
        TlsError
            Keys or certificates cannot be used.
        """
        server, ended = self._begin(None)
        self._prepare(server, _nothing)
        self._background = server, ended

    def stop(self) -> None:
        """End a server that `start` began, within its grace."""
        if self._background is not None:
            server, ended = self._background
            self._background = None
            server.end()
            ended.result()

    def _begin(self, signals: Signals | None) -> tuple[_Background, concurrent.futures.Future[None]]:
        """Listen in a new thread; gives what ends with it."""
        begun: concurrent.futures.Future[_Background] = concurrent.futures.Future()
        ended: concurrent.futures.Future[None] = concurrent.futures.Future()

        def work() -> None:
            try:
                asyncio.run(self._serve(begun.set_result, signals))
            except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
                (ended if begun.done() else begun).set_exception(error)
            else:
                ended.set_result(None)

        threading.Thread(target=work, name="grpc-server", daemon=True).start()
        return begun.result(), ended

    def _prepare(self, server: _Background, prepare: Callable[[], None]) -> None:
        """Put the service behind a server that answers already."""
        try:
            prepare()
            # Only now: numpy comes with it.
            from collective_learner.formats import FORMATS  # noqa: PLC0415
            from collective_learner.service import LearnerService  # noqa: PLC0415

            self._service = LearnerService(
                factory=self._factory,
                metrics=server.metrics,
                max_weights_bytes=self._max_weights_bytes,
                stall_s=self._stall_s,
                weights_format=FORMATS[self._weights_format],
            )
        except BaseException as error:
            server.preparation.end(RefusedError(grpc.StatusCode.INTERNAL, f"the learner cannot start: {error}"))
            server.end()
            raise
        finally:
            server.prepared.set()
        server.preparation.end(self._service)

    async def _serve(self, begun: Callable[[_Background], None], signals: Signals | None) -> None:
        loop = asyncio.get_running_loop()
        stop, hurry = asyncio.Event(), asyncio.Event()
        heard: list[int] = []

        def on_signal(number: int) -> None:
            heard.append(number)
            (hurry if stop.is_set() else stop).set()

        if signals is not None:
            signals.tell(loop, on_signal)
        metrics, health = LearnerMetrics(), Health()
        status = StatusStreams(health)
        preparation: Preparation[LearnerService] = Preparation()
        bound = handlers(
            factory=self._factory,
            preparation=preparation,
            health=health,
            status=status,
            metrics=metrics,
            admit=self._admit,
        )
        listener = self._listen(bound, health)
        if self._metrics_port is not None:
            try:
                metrics.serve(host=self._host, port=self._metrics_port, health=health)
            except OSError as error:
                raise cannot_listen(self._host, self._metrics_port, error) from error
        try:
            await listener.start()
            if self._weights_format == NUMPY_PICKLE:
                _logger.warning(
                    "WEIGHTS TRAVEL AS PICKLED NUMPY ARRAYS, for orchestrators of the original colearn, which run "
                    "whatever a pickle says; what arrives here is read without running any of it. Our own coordinator "
                    "votes on such weights and averages none"
                )
            _logger.info("listening on %s:%d", self._host, self.port)
            background = _Background(loop=loop, stop=stop, preparation=preparation, metrics=metrics)
            begun(background)
            await stop.wait()
            if heard:
                _exit_unless(background.prepared, status=128 + heard[0])
            grace = min(self._grace_s, _UNPREPARED_GRACE_S) if self._service is None else self._grace_s
            _logger.info("stopping within %g s", grace)
            preparation.end(RefusedError(grpc.StatusCode.UNAVAILABLE, "the learner is stopping"))
            health.stop()
            status.end()
            if self._service is not None:
                self._service.stop_training()
            # A tenth of the grace is kept for what comes after.
            stopping = asyncio.create_task(listener.stop(grace * 0.9))
            hurried = asyncio.create_task(hurry.wait())
            await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not stopping.done():
                await listener.stop(0)
            await stopping
        finally:
            metrics.stop()

    def _listen(self, bound: grpc.GenericRpcHandler, health: Health) -> Listener:
        def build(options: Options) -> grpc.aio.Server:
            server = grpc.aio.server(options=(*_OPTIONS, *options))
            server.add_generic_rpc_handlers((bound,))
            health_pb2_grpc.add_HealthServicer_to_server(health, server)
            reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
            return server

        listener = Listener(host=self._host, port=self.port, tls=self._tls, build=build)
        listener.open()
        self.port = listener.port
        return listener

    def _admit(self, context: Context) -> None:
        if self._tls is not None and (why := refusal(context, clients=self._tls_clients)):
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, why)


def _exit_unless(prepared: threading.Event, *, status: int) -> None:
    """End the process unless what prepares the server returns in time."""

    def wait() -> None:
        if not prepared.wait(_UNPREPARED_EXIT_S):
            os._exit(status)

    threading.Thread(target=wait, name="exit", daemon=True).start()
