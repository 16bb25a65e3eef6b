"""The learner's gRPC server: its life from listening to stopping.

Weights pass as raw bytes: the two methods that receive parts and the two that send them have identity serialisers, so
that no generated message stands between the network and the one buffer (`wire.parts` reads and writes them).

The bugs avoided: two servers sharing one port in silence (SO_REUSEPORT is gRPC's default), heartbeats that keep a
stopping server alive, and a stuck training that keeps its process.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from collective_learner.answers import answering
from collective_learner.factory import MliFactory
from collective_learner.formats import FORMATS, NUMPY_PICKLE, SAFETENSORS
from collective_learner.metrics import LearnerMetrics
from collective_learner.service import LearnerService
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.methods import SERVICE
from collective_learner.wire.parts import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collective_learner.answers import Context

_logger = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES = 16 << 30
"""What a server allows when it is not told; the model's own size is the limit in practice."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),  # GetCurrentModel answers with one message
)


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
        Where Prometheus finds /metrics, over HTTP; None for nowhere.
    max_weights_bytes
        The most bytes that weights may have, however large the model is.
    grace_s
        Seconds within which a stopping server has gone, finished or not.
    stall_s
        Seconds after which a stream of weights whose peer neither sends nor reads is given up.
    weights_format
        What weights travel in: ``"safetensors"``, or ``"numpy-pickle"`` for orchestrators of the original colearn.

    Raises
    ------
    ValueError
        The format is neither.
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
        weights_format: str = SAFETENSORS.name,
    ) -> None:
        if weights_format not in FORMATS:
            raise ValueError(f"weights_format: {weights_format!r}, {' or '.join(map(repr, FORMATS))} is needed")
        self._weights_format = weights_format  # by name: under some start methods a server is pickled into its process
        self.port = port
        """The port that is listened on."""
        self._factory = mli_factory
        self._host = host
        self._metrics_port = metrics_port
        self._max_weights_bytes = max_weights_bytes
        self._grace_s = grace_s
        self._stall_s = stall_s
        self._service: LearnerService | None = None
        self._background: tuple[threading.Thread, asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def stuck(self) -> bool:
        """Whether the learner's own code still runs, also after the server has stopped."""
        return self._service is not None and self._service.busy

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second signal ends what the first lets finish.

        Raises
        ------
        OSError
            A port cannot be had.
        """
        asyncio.run(self._run())

    def start(self) -> None:
        """Serve in a background thread; returns when listening.

        Raises
        ------
        OSError
            A port cannot be had.
        """
        ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = concurrent.futures.Future()

        async def serve() -> None:
            stop = asyncio.Event()
            await self._serve(stop, lambda: ready.set_result((asyncio.get_running_loop(), stop)))

        def work() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

        thread = threading.Thread(target=work, name="grpc-server", daemon=True)
        thread.start()
        self._background = (thread, *ready.result())

    def stop(self) -> None:
        """End a server that `start` began, within its grace."""
        if self._background is not None:
            thread, loop, stop = self._background
            self._background = None
            loop.call_soon_threadsafe(stop.set)
            thread.join()

    async def _run(self) -> None:
        stop = asyncio.Event()
        hurry = asyncio.Event()

        def on_signal() -> None:
            (hurry if stop.is_set() else stop).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)
        await self._serve(stop, lambda: None, hurry)

    async def _serve(
        self, stop: asyncio.Event, on_ready: Callable[[], None], hurry: asyncio.Event | None = None
    ) -> None:
        metrics = LearnerMetrics()
        self._service = service = LearnerService(
            factory=self._factory,
            metrics=metrics,
            max_weights_bytes=self._max_weights_bytes,
            stall_s=self._stall_s,
            weights_format=FORMATS[self._weights_format],
        )
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((_handlers(service),))
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self._listen(server)
        if self._metrics_port is not None:
            try:
                metrics.serve(host=self._host, port=self._metrics_port)
            except OSError as error:
                raise _cannot_listen(self._host, self._metrics_port, error) from error
        try:
            await server.start()
            await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
            if self._weights_format == NUMPY_PICKLE.name:
                _logger.warning(
                    "WEIGHTS TRAVEL AS PICKLED NUMPY ARRAYS, for orchestrators of the original colearn, which run "
                    "whatever a pickle says; what arrives here is read without running any of it. Our own coordinator "
                    "votes on such weights and averages none"
                )
            _logger.info("listening on %s:%d", self._host, self.port)
            on_ready()
            await stop.wait()
            _logger.info("stopping within %g s", self._grace_s)
            await servicer.enter_graceful_shutdown()
            service.end_status_streams()
            service.stop_training()
            # A tenth of the grace is kept for what comes after.
            stopping = asyncio.create_task(server.stop(self._grace_s * 0.9))
            if hurry is not None:
                hurried = asyncio.create_task(hurry.wait())
                await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
            if not stopping.done() and (hurry is not None and hurry.is_set()):
                await server.stop(0)
            await stopping
        finally:
            metrics.stop()

    def _listen(self, server: grpc.aio.Server) -> None:
        address = f"[{self._host}]" if ":" in self._host else self._host
        try:
            _try_to_bind(self._host, self.port)  # gRPC alone would not say why
            self.port = server.add_insecure_port(f"{address}:{self.port}")
        except (OSError, RuntimeError) as error:
            raise _cannot_listen(self._host, self.port, error) from error


def _try_to_bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC: one that just closed is no obstacle
        probe.bind(address)


def _cannot_listen(host: str, port: int, error: Exception) -> OSError:
    why = error.strerror if isinstance(error, OSError) else None
    return OSError(errno.EADDRINUSE, f"cannot listen on {host}, port {port}: {why or error}")


def _handlers(service: LearnerService) -> grpc.GenericRpcHandler:
    """Bind the methods; those that carry parts have identity serialisers."""
    unary: dict[str, tuple[Callable[[Any, Context], Awaitable[Any]], Callable[[bytes], Any]]] = {
        "QueryVersion": (service.query_version, Empty.FromString),
        "QuerySupportedSystem": (service.query_supported_system, Empty.FromString),
        "GetCurrentModel": (service.get_current_model, Empty.FromString),
        "MLSetup": (service.ml_setup, pb.RequestMLSetup.FromString),
        "AcceptWeights": (service.accept_weights, pb.RequestAcceptWeights.FromString),
        "TestProposal": (service.test_proposal, pb.RequestTestProposal.FromString),
    }
    uploads = {"TestWeights": service.test_weights, "SetWeights": service.set_weights}
    downloads: dict[str, tuple[Callable[[Any, Context], Awaitable[None]], Callable[[bytes], Any]]] = {
        "ProposeWeights": (service.propose_weights, pb.RequestProposeWeights.FromString),
        "GetCurrentWeights": (service.get_current_weights, Empty.FromString),
        "ExportModel": (service.export_model, pb.RequestExportModel.FromString),
    }
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method, (behaviour, parse) in unary.items():
        handlers[method] = grpc.unary_unary_rpc_method_handler(
            _with_request(service, method, behaviour, parse), None, _serialize
        )
    for method, upload in uploads.items():
        handlers[method] = grpc.stream_unary_rpc_method_handler(_with_stream(service, method, upload), None, _serialize)
    for method, (download, parse) in downloads.items():
        handlers[method] = grpc.unary_stream_rpc_method_handler(
            _with_request(service, method, download, parse), None, None
        )
    handlers["StatusStream"] = grpc.stream_stream_rpc_method_handler(
        _with_stream(service, "StatusStream", service.status_stream), None, _serialize
    )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _with_request(
    service: LearnerService,
    method: str,
    behaviour: Callable[[Any, Context], Awaitable[Any]],
    parse: Callable[[bytes], Any],
) -> Callable[[bytes, Context], Awaitable[Any]]:
    async def answer(request: bytes, context: Context) -> Any:  # parsed here, so that nonsense has its own status
        async with answering(method, context, service.metrics):
            return await behaviour(parse(request), context)

    return answer


def _with_stream(
    service: LearnerService, method: str, behaviour: Callable[[Context], Awaitable[Any]]
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def answer(requests: Any, context: Context) -> Any:  # read through the context, which can be timed
        async with answering(method, context, service.metrics):
            return await behaviour(context)

    return answer


def _serialize(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized
