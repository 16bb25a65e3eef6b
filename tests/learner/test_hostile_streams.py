"""Streams that lie, stop, or go away: the right status, and a learner that is as it was."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from google.protobuf.empty_pb2 import Empty

from collective_learner.mli import Weights
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.codec import encode

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


def weights(**changed) -> bytes:
    arrays = {"w": np.array([1, 2], np.float32), "n": np.array(4, np.int64), **changed}
    return safetensors.numpy.save({name: array for name, array in arrays.items() if array is not None})


DATA = weights()
SIZE = len(DATA)


def part(begin: int, end: int, *, at: int | None = None, total: int = SIZE, **more) -> pb.WeightsPart:
    return pb.WeightsPart(weights=DATA[begin:end], byte_index=begin if at is None else at, total_bytes=total, **more)


STREAMS: dict[str, tuple[list[pb.WeightsPart], grpc.StatusCode, str]] = {
    "nothing": ([], INVALID, "held no part"),
    "truncated": ([part(0, 50)], INVALID, f"ended at byte 50 of {SIZE}"),
    "one byte short": ([part(0, SIZE - 1)], INVALID, f"ended at byte {SIZE - 1} of {SIZE}"),
    "overlapping": ([part(0, 50), part(49, SIZE)], INVALID, "starts at byte 49, the one before ended at 50"),
    "with a hole": ([part(0, 50), part(51, SIZE)], INVALID, "starts at byte 51"),
    "twice": ([part(0, SIZE), part(0, SIZE)], INVALID, "starts at byte 0"),
    "backwards": ([part(50, SIZE), part(0, 50)], INVALID, "starts at byte 50, the one before ended at 0"),
    "more than announced": ([part(0, SIZE, total=SIZE - 1)], INVALID, "more than the announced"),
    "more than announced, late": ([part(0, 50), part(50, SIZE), part(0, 9, at=SIZE)], INVALID, "more than the"),
    "changing its mind": ([part(0, 50), part(50, SIZE, total=SIZE + 1)], INVALID, "in the first part"),
    "standing still": ([part(0, 50), part(50, 50)], INVALID, "an empty part at byte 50"),
    "announcing nothing": ([part(0, 0, total=0)], INVALID, "0 bytes are no weights"),
    "larger than the model": ([part(0, 50, total=100_000)], EXHAUSTED, "announce 100000 bytes, the limit here is 6"),
    "larger than any": ([part(0, 50, total=2**64 - 1)], EXHAUSTED, "announce 18446744073709551615 bytes"),
    "a message too large": ([pb.WeightsPart(weights=bytes(5 << 20), total_bytes=5 << 20)], EXHAUSTED, "arger than max"),
    "with another's digest": ([part(0, SIZE, digest=bytes(32))], INVALID, "their sender calls 0000"),
}

CONTENTS: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x01" * 99, "header claims"),
    "a pickle": (pickle.dumps([np.zeros(2)]), "pickled"),
    "a missing tensor": (weights(n=None), "lack 'n'; the model has 'w', 'n'"),
    "an unknown tensor": (weights(x=np.zeros(2)), "hold the unknown 'x'; the model has"),
    "another name": (weights(n=None, m=np.array(4)), "lack 'n' and hold the unknown 'm'"),
    "another shape": (weights(w=np.zeros((2, 1), np.float32)), r"'w' has the shape \(2, 1\), the model's has \(2,\)"),
    "a shape that broadcasts": (weights(w=np.zeros(1, np.float32)), r"'w' has the shape \(1,\)"),
    "another type": (weights(w=np.zeros(2, np.float64)), "'w' has the type float64, the model's has float32"),
    "another sign": (weights(n=np.array(4, np.uint64)), "'n' has the type uint64"),
    "NaN": (weights(w=np.array([1, np.nan], np.float32)), "'w' holds numbers that are not finite"),
    "infinity": (weights(w=np.array([1, np.inf], np.float32)), "'w' holds numbers that are not finite"),
    "minus infinity": (weights(w=np.array([-np.inf, 0], np.float32)), "'w' holds numbers that are not finite"),
    "a list": (encode(Weights([np.zeros(2, np.float32), np.array(4)])).to_bytes(), "lack 'w', 'n' and hold"),
}


@pytest.fixture
def checked(peer, tmp_path: Path):
    """Check that the learner was not even called, and is as it was before."""
    peer.setup(mark=str(tmp_path))
    before = peer.current()
    peer.test(DATA)
    tested = blake3(DATA).digest()

    def check(send: Callable, stream: object, code: grpc.StatusCode, message: str) -> None:
        with pytest.raises(grpc.RpcError, match=message) as refused:
            send(stream)
        assert refused.value.code() is code

    yield check
    assert peer.current() == before
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["test"]
    with pytest.raises(grpc.RpcError) as refused:
        peer.accept(tested)  # given up before the next buffer was allocated
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    peer.set(DATA)
    assert safetensors.numpy.load(peer.current())["w"].tolist() == [1, 2]


@pytest.mark.parametrize("method", ["test", "set"])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_lies_is_refused(peer, checked, method: str, kind: str) -> None:
    stream, code, message = STREAMS[kind]
    checked(getattr(peer, method), stream, code, message)


@pytest.mark.parametrize("method", ["test", "set"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_weights_that_do_not_fit_are_refused(peer, checked, method: str, kind: str) -> None:
    data, message = CONTENTS[kind]
    checked(getattr(peer, method), data, INVALID, message)


@pytest.mark.parametrize("method", ["TestWeights", "SetWeights"])
def test_messages_that_are_none_are_refused(peer, shared, checked, method: str) -> None:
    call = shared.channel().stream_unary(f"/contract_learn.grpc.GRPCLearner/{method}")
    checked(lambda raw: call(iter([raw]), timeout=60), b"\x0a\xff", INVALID, "WeightsPart")


def test_what_differs_in_layout_only_is_taken(peer) -> None:
    data = encode(Weights({"n": np.array(7), "w": np.array([5, 6], ">f4")})).to_bytes()
    peer.set(data)
    assert safetensors.numpy.load(peer.current())["w"].tolist() == [5, 6]
    peer.setup(as_list=True)
    peer.set(safetensors.numpy.save({"1": np.array(7), "0": np.array([5, 6], np.float32)}))
    assert safetensors.numpy.load(peer.current())["0"].tolist() == [5, 6]


def half_and_wait(release: threading.Event):
    yield part(0, 50)
    release.wait(60)


@pytest.mark.parametrize("method", ["TestWeights", "SetWeights"])
@pytest.mark.parametrize("how", ["cancel", "deadline", "vanish"])
def test_a_sender_that_goes_away_leaves_nothing_behind(peer, shared, connect, method: str, how: str) -> None:
    before = peer.current()
    release = threading.Event()
    other = connect(shared)
    try:
        call = getattr(other.stub, method).future(half_and_wait(release), timeout=0.3 if how == "deadline" else 60)
        if how == "cancel":
            peer.status()  # the server has been at it meanwhile
            call.cancel()
        elif how == "vanish":
            peer.status()
            shared.channels[-1].close()
        with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
            call.result(60)
    finally:
        release.set()
    assert peer.current() == before
    peer.set(DATA)


def test_a_silent_stream_is_given_up(servers, connect) -> None:
    peer = connect(servers.start(program=("impatient_server.py",)))
    peer.setup()
    release = threading.Event()
    try:
        with pytest.raises(grpc.RpcError, match="no part of the weights came for 1 seconds") as refused:
            peer.test(half_and_wait(release))
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        release.set()
    assert peer.setup().status == pb.SUCCESS, "nobody has the turn any more"


def test_a_reader_that_stops_reading_is_given_up(servers, connect) -> None:
    peer = connect(servers.start(program=("impatient_server.py",)))
    peer.setup(size=5_000_000)
    call = peer.stub.GetCurrentWeights(Empty(), timeout=60)
    with pytest.raises(grpc.RpcError, match="no part of the weights was read for 1 seconds"):
        next(call)
        # Waits for its turn: the reader's views may be of the living model. It streams nothing that would be given up.
        assert peer.setup().status == pb.SUCCESS
        list(call)


def test_idle_status_streams_are_bounded_and_block_nothing(peer, shared, eventually) -> None:
    release = threading.Event()

    def idle():
        release.wait(60)
        yield pb.RequestStatus()

    def one_then_idle():
        yield pb.RequestStatus()
        release.wait(60)

    channel = shared.channel()
    raw = channel.stream_stream("/contract_learn.grpc.GRPCLearner/StatusStream")
    calls = []
    try:
        # Each is known to be open once it has answered; Python needs a thread for each, the server needs none.
        for _ in range(256):
            calls.append(raw(map(pb.RequestStatus.SerializeToString, one_then_idle()), timeout=120))
            next(calls[-1])
        with pytest.raises(grpc.RpcError, match="256 streams of status are open") as refused:
            peer.status()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(peer.propose()[0])
        assert peer.stub.QueryVersion(Empty(), timeout=60).version
    finally:
        release.set()
        for call in calls:
            call.cancel()

    def answered() -> bool:
        try:
            return [answer.status for answer in peer.stub.StatusStream(idle(), timeout=60)] == [pb.WORKING]
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

    eventually(answered, what="room for a stream of status")
