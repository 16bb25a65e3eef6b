"""Is a learner alive while a long call to it runs? The length of a call is no sign of death.

Three signs, and what each means:

- A StatusStream answer: the learner's Python runs. Its absence means little: a training step may hold the interpreter's
  lock for minutes, and a server with one worker thread answers nothing while it trains.
- A connection that becomes ready: the process runs and can be reached, since gRPC's core answers the handshake from its
  own threads, without Python. A stopped (SIGSTOP) or cut off process does not: the kernel takes the connection, and
  nobody speaks.
- HTTP/2 keepalive pings tell the same as a handshake, but a server with default options hangs up on whoever
  pings it more often than every five minutes. So they stay off.

A learner counts as dead when it gives neither of the first two, several times in a row. A status of NO_MODEL over
a new connection, during a call that needs a model, means that the learner has been replaced behind the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar

import grpc

from collective_coordinator.dialing import Dialer
from collective_coordinator.errors import LearnerError
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire import methods

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Every bound on waiting for learners, in seconds.

    Parameters
    ----------
    round_s
        Of one call that trains, tests, or takes weights (which may test them).
    query_s, setup_s
        Of a question that is answered at once; of one that waits for a learner's imports, and of MLSetup, which
        loads the data.
    heartbeat_s
        Between two signs of life during a call.
    answer_s, handshake_s
        For each of the two signs.
    misses
        So many signs in a row must be missing.
    backoff_first_s, backoff_most_s
        Between attempts to reach a learner.
    quorum_grace_s
        Once the quorum is there at the start, for the others to come too.
    settle_s
        After the last round, for stragglers to take the last weights.
    reload_s
        Between two looks at the configuration's file.
    """

    round_s: float = 600.0
    query_s: float = 10.0
    setup_s: float = 600.0
    heartbeat_s: float = 5.0
    answer_s: float = 5.0
    handshake_s: float = 5.0
    misses: int = 2
    backoff_first_s: float = 0.1
    backoff_most_s: float = 2.0
    quorum_grace_s: float = 10.0
    settle_s: float = 5.0
    reload_s: float = 1.0


async def end_of_writing(
    call: grpc.aio.StreamUnaryCall[bytes, bytes] | grpc.aio.StreamStreamCall[bytes, bytes],
) -> None:
    """Say that nothing more will be written.

    When the connection breaks right then, gRPC raises a nameless error of its own; the call's status, which whoever
    reads the answer gets, tells more.
    """
    with contextlib.suppress(grpc.aio.InternalError):
        await call.done_writing()


async def answers_status(channel: grpc.aio.Channel, *, timeout_s: float) -> int:
    """Ask once for the learner's SystemStatus.

    Raises
    ------
    grpc.aio.AioRpcError
        It did not answer.
    """
    stub: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(methods.path("StatusStream"))
    call = stub(timeout=timeout_s)
    try:
        await call.write(pb.RequestStatus().SerializeToString())
        await end_of_writing(call)
        raw = await call.read()
        return pb.ResponseStatus.FromString(raw).status if isinstance(raw, bytes) else pb.UNKNOWN
    except (asyncio.InvalidStateError, ValueError):
        return pb.UNKNOWN  # it ended the call early, or answered something else: somebody is there
    finally:
        call.cancel()


class Watch:
    """Watches over one call, as a context; `race` ends with an error when the learner is found dead.

    Parameters
    ----------
    channel
        Of the call.
    address
        Of the learner, for a second connection.
    timing
        How patient to be.
    needs_model
        Whether a learner without a model cannot be the one that was called.
    dialer
        Makes the second connection; None in plain text.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        address: str,
        timing: Timing,
        needs_model: bool = True,
        dialer: Dialer | None = None,
    ) -> None:
        self._channel = channel
        self._address = address
        self._timing = timing
        self._needs_model = needs_model
        self._dialer = dialer or Dialer()
        self._pulse: asyncio.Task[str] | None = None

    async def __aenter__(self) -> Self:
        self._pulse = asyncio.create_task(self._until_dead())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.wait({self._pulse})

    def ends(self, call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
        """Cancel the call when the learner is found dead; what is awaited of it goes through `read`.

        For streams: to `race` every message of a large model would cost more than to receive it.
        """
        assert self._pulse is not None  # noqa: S101 - entered
        self._pulse.add_done_callback(lambda _: call.cancel())

    async def read(self, awaited: Awaitable[T]) -> T:
        """Await something of a call that `ends` was told of."""
        try:
            return await awaited
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if self._pulse is not None and self._pulse.done():
                raise LearnerError(self._pulse.result(), code=grpc.StatusCode.UNAVAILABLE) from None
            raise LearnerError("the connection was given up", code=grpc.StatusCode.CANCELLED) from None

    async def race(self, work: Awaitable[T]) -> T:
        """Await work, unless the learner dies first."""
        assert self._pulse is not None  # noqa: S101 - entered
        task = asyncio.ensure_future(_result(work))
        try:
            await asyncio.wait({task, self._pulse}, return_when=asyncio.FIRST_COMPLETED)
            if task.cancelled():
                raise LearnerError("the connection was given up", code=grpc.StatusCode.CANCELLED)
            if task.done():
                return task.result()
            raise LearnerError(self._pulse.result(), code=grpc.StatusCode.UNAVAILABLE)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody else asks for it, when the learner died first or this was cancelled

    async def _until_dead(self) -> str:
        missed = 0
        while True:
            await asyncio.sleep(self._timing.heartbeat_s)
            if await self._speaks():
                missed = 0
                continue
            reached = await self._reached()
            if reached == "replaced":
                return "has been restarted: what answers at its address has no model"
            missed = 0 if reached else missed + 1
            if missed >= self._timing.misses:
                return "gives no sign of life: it is stopped or cut off"

    async def _speaks(self) -> bool:
        try:
            await answers_status(self._channel, timeout_s=self._timing.answer_s)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        return True

    async def _reached(self) -> Literal["", "there", "replaced"]:
        channel = self._dialer.channel(self._address)
        try:
            async with asyncio.timeout(self._timing.handshake_s):
                await channel.channel_ready()
            status = await answers_status(channel, timeout_s=self._timing.answer_s)
        except TimeoutError:
            return ""
        except grpc.aio.AioRpcError:
            return "there"
        finally:
            await channel.close()
        return "replaced" if self._needs_model and status == pb.NO_MODEL else "there"


async def _result(work: Awaitable[T]) -> T:
    return await work
