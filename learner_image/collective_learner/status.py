"""StatusStream: answers every request with the learner's status, while its modules are imported and while it trains.

The bug avoided: a stream that waits for its caller's next request would keep a stopping server for all its grace.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from collective_learner.answers import RefusedError
from collective_learner.health import Health
from collective_learner.wire import interface_pb2 as pb

if TYPE_CHECKING:
    from collective_learner.calls import Context

_MAX_STREAMS = 256


class StatusStreams:
    """All streams of status of one server, on one event loop.

    Parameters
    ----------
    health
        Knows whether there is a model.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._open = 0
        self._listening: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def serve(self, context: Context) -> None:
        """Answer one stream."""
        if self._open >= _MAX_STREAMS:
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_STREAMS} streams of status are open already")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._open += 1
        try:
            while not self._stopping:
                # Cancelled only while it listens: gRPC cannot send a status while it is still sending an answer.
                self._listening.add(task)
                try:
                    request = await context.read()
                finally:
                    self._listening.discard(task)
                if request is grpc.aio.EOF:
                    return
                await context.write(pb.ResponseStatus(status=pb.WORKING if self._health.is_set_up else pb.NO_MODEL))
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            # Ended by `end`: the caller is told, since gRPC sends nothing for a task that was cancelled.
            task.uncancel()
        finally:
            self._open -= 1
        raise RefusedError(grpc.StatusCode.UNAVAILABLE, "the learner is stopping")

    def end(self) -> None:
        """End the streams that would never end by themselves, when the server stops."""
        self._stopping = True
        for task in self._listening:
            task.cancel()
