"""One remote learner, spoken to: every RPC of the Machine Learning Interface, with a deadline and a watch.

Weights pass as the raw messages, so that what only goes through is neither parsed into a message nor serialised again.
Every failure comes out as a `LearnerError` that says what happened in words.

Channels are made anew after a failure: a fresh channel resolves the name again (a pod comes back with another
address), and a private subchannel pool keeps it from inheriting the old one's backoff. And when certificates were
renewed, between two calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from collective_coordinator.dialing import Dialer
from collective_coordinator.errors import LearnerError, SetupRefusedError
from collective_coordinator.metrics import Metrics
from collective_coordinator.pulse import Timing, Watch, answers_status, end_of_writing
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire import methods

M = TypeVar("M", bound=Message)

_EMPTY = Empty().SerializeToString()

_NEED_NO_MODEL = ("QuerySupportedSystem", "MLSetup")

_MASKED = "Internal error from Core"
"""What grpc.aio puts in the place of the true status when a write meets a call that the peer has just ended."""


class Peer:
    """The calls to one learner. One at a time of propose, test and accept; a status call fits beside them.

    Parameters
    ----------
    address
        ``host:port``.
    timing
        Deadlines.
    metrics
        Told of every call.
    dialer
        Makes channels; None in plain text.
    """

    def __init__(self, *, address: str, timing: Timing, metrics: Metrics, dialer: Dialer | None = None) -> None:
        self._address = address
        self._timing = timing
        self._metrics = metrics
        self._dialer = dialer or Dialer()
        self._under_way = 0
        self._channel = self._new_channel()
        self._tests_proposals = True

    def _new_channel(self) -> grpc.aio.Channel:
        channel = self._dialer.channel(self._address)
        self._version = self._dialer.version
        return channel

    async def reconnect(self) -> None:
        """Drop the channel and its calls, and begin with a fresh one."""
        old, self._channel = self._channel, self._new_channel()
        self._tests_proposals = True
        await old.close()

    async def _freshen(self) -> None:
        if not self._under_way and self._dialer.version != self._version:
            await self.reconnect()

    async def close(self) -> None:
        """Drop the channel; its calls are cancelled, which the learner sees."""
        await self._channel.close()

    async def version(self) -> str:
        """Ask for the interface's version; empty from a peer that does not say. The cheapest way to connect."""
        try:
            answer = await self._unary("QueryVersion", _EMPTY, pb.ResponseVersion, self._timing.query_s)
        except LearnerError as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                return ""
            raise
        return answer.version

    async def supported(self) -> pb.ResponseSupportedSystem:
        """Ask what may be set up, which waits for the learner's imports; empty from a peer that does not say."""
        try:
            return await self._unary(
                "QuerySupportedSystem", _EMPTY, pb.ResponseSupportedSystem, self._timing.setup_s, watched=True
            )
        except LearnerError as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                return pb.ResponseSupportedSystem()
            raise

    async def has_model(self) -> bool:
        """Ask whether it has been set up; False also when it does not say."""
        try:
            status = await answers_status(self._channel, timeout_s=self._timing.query_s)
        except grpc.aio.AioRpcError:
            return False
        return status == pb.WORKING

    async def setup(self, request: pb.RequestMLSetup) -> None:
        """Have it load its data and build its model.

        Raises
        ------
        SetupRefusedError
            It will not, and would not another time.
        """
        try:
            answer = await self._unary(
                "MLSetup", request.SerializeToString(), pb.ResponseMLSetup, self._timing.setup_s, watched=True
            )
        except LearnerError as error:
            if error.code is grpc.StatusCode.INVALID_ARGUMENT:
                raise SetupRefusedError(str(error), code=error.code) from error
            raise
        if answer.status != pb.SUCCESS:
            raise SetupRefusedError(answer.description or f"MLSetup answered the status {answer.status}")

    async def accept(self, digest: bytes) -> None:
        """Have it take the weights that it tested last, by their digest."""
        request = pb.RequestAcceptWeights(digest=digest)
        await self._unary("AcceptWeights", request.SerializeToString(), Empty, self._timing.round_s, watched=True)

    def propose(self, request: pb.RequestProposeWeights, *, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """Have it train, and stream the parts of its proposal."""
        return self._download("ProposeWeights", request.SerializeToString(), timeout_s)

    def current(self) -> AsyncGenerator[bytes, None]:
        """Stream the parts of the weights that it holds."""
        return self._download("GetCurrentWeights", _EMPTY, self._timing.round_s)

    def export(self, name: str, *, digest: bytes) -> AsyncGenerator[bytes, None]:
        """Have it write the model that these weights make in another format, and stream the parts of the file."""
        request = pb.RequestExportModel(format=name, digest=digest)
        return self._download("ExportModel", request.SerializeToString(), self._timing.round_s)

    async def test(self, parts: AsyncGenerator[bytes, None]) -> pb.ProposedWeights:
        """Have it vote on weights."""
        return await self._upload("TestWeights", parts, pb.ProposedWeights)

    async def test_proposal(self, name: bytes) -> pb.ProposedWeights | None:
        """Have it vote on the weights that it proposed last, where they are; None when it does not hold them."""
        if not self._tests_proposals:
            return None
        request = pb.RequestTestProposal(proposal=name).SerializeToString()
        try:
            return await self._unary("TestProposal", request, pb.ProposedWeights, self._timing.round_s, watched=True)
        except LearnerError as error:
            if error.code not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                raise
            self._tests_proposals = error.code is grpc.StatusCode.NOT_FOUND
            return None

    async def set(self, parts: AsyncGenerator[bytes, None]) -> None:
        """Have it take weights."""
        await self._upload("SetWeights", parts, Empty)

    async def _unary(
        self, method: str, request: bytes, answer: Callable[[], M], timeout_s: float, *, watched: bool = False
    ) -> M:
        await self._freshen()
        with self._translated(method):
            stub: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(methods.path(method))
            call = stub(request, timeout=timeout_s)
            if watched:
                async with self._watch(needs_model=method not in _NEED_NO_MODEL) as watch:
                    raw = await watch.race(call)
            else:
                raw = await call
            return _parsed(answer(), raw)

    async def _download(self, method: str, request: bytes, timeout_s: float) -> AsyncGenerator[bytes, None]:
        await self._freshen()
        with self._translated(method):
            stub: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(methods.path(method))
            call = stub(request, timeout=timeout_s)
            try:
                async with self._watch() as watch:
                    watch.ends(call)
                    while isinstance(message := await watch.read(call.read()), bytes):
                        self._metrics.received(len(message))
                        yield message
            finally:
                call.cancel()

    async def _upload(self, method: str, parts: AsyncGenerator[bytes, None], answer: Callable[[], M]) -> M:
        # The first part is awaited before the call is made: its deadline is for the learner, not for the proposal.
        async with contextlib.aclosing(parts):
            first = await anext(parts)
            await self._freshen()
            with self._translated(method):
                stub: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(methods.path(method))
                call = stub(timeout=self._timing.round_s)
                try:
                    async with self._watch() as watch:
                        raw = await watch.race(self._sent(call, first, parts))
                    return _parsed(answer(), raw)
                finally:
                    call.cancel()

    async def _sent(
        self, call: grpc.aio.StreamUnaryCall[bytes, bytes], first: bytes, parts: AsyncGenerator[bytes, None]
    ) -> bytes:
        try:
            await call.write(first)
            self._metrics.sent(len(first))
            async for part in parts:
                await call.write(part)
                self._metrics.sent(len(part))
            await end_of_writing(call)
        except asyncio.InvalidStateError:
            # It has ended the call; awaiting it tells how. A good answer to a half-sent model is none.
            await call
            raise LearnerError("answered before it had all the weights") from None
        return await call

    def _watch(self, *, needs_model: bool = True) -> Watch:
        return Watch(
            self._channel, address=self._address, timing=self._timing, needs_model=needs_model, dialer=self._dialer
        )

    @contextlib.contextmanager
    def _translated(self, method: str) -> Iterator[None]:
        started = time.perf_counter()
        code = "UNKNOWN"
        self._under_way += 1
        try:
            yield
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise LearnerError(_in_words(method, error), code=error.code()) from error
        except LearnerError as error:
            if error.code is not None:
                code = error.code.name
            raise LearnerError(f"{method}: {error}", code=error.code) from error
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        finally:
            self._under_way -= 1
            self._metrics.rpc(method, code, time.perf_counter() - started)


def _parsed(message: M, raw: bytes) -> M:
    try:
        message.ParseFromString(raw)
    except ValueError as error:  # protobuf's DecodeError is one
        raise LearnerError(f"its answer cannot be read: {error}") from error
    return message


def _in_words(method: str, error: grpc.aio.AioRpcError) -> str:
    details = (error.details() or "no details").strip()
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{method}: did not answer within its deadline"
    if details == _MASKED:
        return f"{method}: ended the call before it had all the weights"
    return f"{method}: {error.code().name}: {details}"
