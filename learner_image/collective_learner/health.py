"""Whether a learner lives, and whether it can learn: gRPC's health service, and what else tells the same.

Three names can be asked for. The server as a whole (``""``) and the Machine Learning Interface are SERVING from the
moment that a model is set up until the learner is told to stop. Before, while modules are imported, while MLSetup is
waited for and loads its data, they are NOT_SERVING: whatever is asked then but MLSetup is refused. ``liveness`` is
SERVING from the first moment until the stop: a learner without a model is none that a restart would help.

grpcio-health-checking has a servicer, too. Of several watchers of its asyncio form only some hear of a change once one
has left, and each holds up a stopping server for all its grace; so only messages and stubs are taken from there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collective_learner.wire.methods import SERVICE

if TYPE_CHECKING:
    from collective_learner.calls import Context

LIVENESS = "liveness"
"""By Kubernetes' convention for the names that probes ask for."""

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_NAMES = ("", SERVICE, LIVENESS)
_MAX_WATCHERS = 256


class Health(health_pb2_grpc.HealthServicer):
    """The state of one learner; belongs to one event loop, other threads may read it."""

    def __init__(self) -> None:
        self.is_set_up = False
        """Whether there is a model."""
        self._stopping = False
        self._changed = asyncio.Event()
        self._watchers = 0

    def set_up(self) -> None:
        """Note that there is a model; there will be one from now on."""
        self.is_set_up = True
        self._tell()

    def stop(self) -> None:
        """Note that the learner is stopping; that is the last word."""
        self._stopping = True
        self._tell()

    def is_serving(self, service: str) -> bool:
        """Tell what the health service says of one of the three names."""
        return not self._stopping and (self.is_set_up or service == LIVENESS)

    async def Check(  # noqa: N802 - the RPC's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Say it once."""
        if request.service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service: {request.service!r}, one of {_NAMES} is needed")
        return self._response(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """Say it now, and whenever it changes, until the learner stops."""
        if self._watchers >= _MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_WATCHERS} watch the health already")
        self._watchers += 1
        said = None
        try:
            while True:
                changed = self._changed
                response = self._response(request.service)
                if response != said:
                    await context.write(response)
                    said = response
                if self._stopping:
                    return
                await changed.wait()
        finally:
            self._watchers -= 1

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in _NAMES:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        serving = self.is_serving(service)
        return health_pb2.HealthCheckResponse(
            status=health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
