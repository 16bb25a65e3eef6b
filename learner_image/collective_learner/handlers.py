"""Binds the RPCs to what answers them: at once, as soon as the learner's modules are imported, or only with a model.

Weights pass as raw bytes: the two methods that receive parts and the two that send them have identity serialisers, so
that no generated message stands between the network and the one buffer (`wire.parts` reads and writes them).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.empty_pb2 import Empty

from collective_learner.answers import answering
from collective_learner.calls import serialize
from collective_learner.factory import MliFactory
from collective_learner.health import Health
from collective_learner.metrics import LearnerMetrics
from collective_learner.preparation import Preparation
from collective_learner.status import StatusStreams
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.methods import SERVICE

if TYPE_CHECKING:
    from collective_learner.calls import Context
    from collective_learner.service import LearnerService


def handlers(
    *,
    factory: MliFactory,
    preparation: Preparation[LearnerService],
    health: Health,
    status: StatusStreams,
    metrics: LearnerMetrics,
    admit: Callable[[Context], None],
) -> grpc.GenericRpcHandler:
    """Bind the methods; those that carry parts have identity serialisers.

    Parameters
    ----------
    factory
        Tells the version.
    preparation
        Gives the service, which answers what nobody else here does.
    health
        Told that a model is set up.
    status
        Answers StatusStream.
    metrics
        Told of every call.
    admit
        Raises `RefusedError` for a call that is not to be answered, whoever it is for.
    """

    async def query_version(request: Empty, context: Context) -> pb.ResponseVersion:
        return pb.ResponseVersion(version=factory.get_version())

    async def query_supported_system(request: Empty, context: Context) -> pb.ResponseSupportedSystem:
        service = await preparation.wait()
        return await service.query_supported_system(request, context)

    async def ml_setup(request: pb.RequestMLSetup, context: Context) -> pb.ResponseMLSetup:
        service = await preparation.wait()
        answer = await service.ml_setup(request, context)
        if answer.status == pb.SUCCESS:
            health.set_up()
        return answer

    now = preparation.now
    unary: dict[str, tuple[Callable[[Any, Context], Awaitable[Any]], Callable[[bytes], Any]]] = {
        "QueryVersion": (query_version, Empty.FromString),
        "QuerySupportedSystem": (query_supported_system, Empty.FromString),
        "MLSetup": (ml_setup, pb.RequestMLSetup.FromString),
        "GetCurrentModel": (lambda *call: now().get_current_model(*call), Empty.FromString),
        "AcceptWeights": (lambda *call: now().accept_weights(*call), pb.RequestAcceptWeights.FromString),
        "TestProposal": (lambda *call: now().test_proposal(*call), pb.RequestTestProposal.FromString),
    }
    uploads: dict[str, Callable[[Context], Awaitable[Any]]] = {
        "TestWeights": lambda context: now().test_weights(context),
        "SetWeights": lambda context: now().set_weights(context),
    }
    downloads: dict[str, tuple[Callable[[Any, Context], Awaitable[None]], Callable[[bytes], Any]]] = {
        "ProposeWeights": (lambda *call: now().propose_weights(*call), pb.RequestProposeWeights.FromString),
        "GetCurrentWeights": (lambda *call: now().get_current_weights(*call), Empty.FromString),
        "ExportModel": (lambda *call: now().export_model(*call), pb.RequestExportModel.FromString),
    }
    bound: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method, (behaviour, parse) in unary.items():
        bound[method] = grpc.unary_unary_rpc_method_handler(
            _with_request(metrics, admit, method, behaviour, parse), None, serialize
        )
    for method, upload in uploads.items():
        bound[method] = grpc.stream_unary_rpc_method_handler(
            _with_stream(metrics, admit, method, upload), None, serialize
        )
    for method, (download, parse) in downloads.items():
        bound[method] = grpc.unary_stream_rpc_method_handler(
            _with_request(metrics, admit, method, download, parse), None, None
        )
    bound["StatusStream"] = grpc.stream_stream_rpc_method_handler(
        _with_stream(metrics, admit, "StatusStream", status.serve), None, serialize
    )
    return grpc.method_handlers_generic_handler(SERVICE, bound)


def _with_request(
    metrics: LearnerMetrics,
    admit: Callable[[Context], None],
    method: str,
    behaviour: Callable[[Any, Context], Awaitable[Any]],
    parse: Callable[[bytes], Any],
) -> Callable[[bytes, Context], Awaitable[Any]]:
    async def answer(request: bytes, context: Context) -> Any:  # parsed here, so that nonsense has its own status
        async with answering(method, context, metrics):
            admit(context)
            return await behaviour(parse(request), context)

    return answer


def _with_stream(
    metrics: LearnerMetrics,
    admit: Callable[[Context], None],
    method: str,
    behaviour: Callable[[Context], Awaitable[Any]],
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def answer(requests: Any, context: Context) -> Any:  # read through the context, which can be timed
        async with answering(method, context, metrics):
            admit(context)
            return await behaviour(context)

    return answer
