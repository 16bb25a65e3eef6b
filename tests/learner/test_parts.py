from __future__ import annotations

import itertools

import pytest
from google.protobuf import unknown_fields
from hypothesis import given
from hypothesis import strategies as st

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.assembly import Assembly
from collective_learner.wire.parts import (
    Part,
    PartSequence,
    TooLargeError,
    WireError,
    cut_into_parts,
    encode_part,
    encode_parts,
    parse_part,
)

UINT32 = 2**32 - 1


@given(
    payload=st.binary(max_size=300),
    offset=st.integers(0, 2**63),
    total=st.integers(0, 2**64 - 1),
    metrics=st.none() | st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3),
    digest=st.none() | st.binary(min_size=32, max_size=32),
)
def test_what_is_written_by_hand_is_what_protobuf_reads(payload, offset, total, metrics, digest) -> None:
    summary = None if metrics is None else pb.TrainingSummary(metrics=metrics).SerializeToString()
    message = pb.WeightsPart.FromString(
        encode_part(payload, offset=offset, total=total, summary=summary, digest=digest)
    )
    assert message.weights == payload
    assert (message.byte_offset or message.byte_index) == offset
    assert (message.byte_offset == 0) == (offset <= UINT32)
    assert message.total_bytes == total
    assert message.HasField("training_summary") == (summary is not None)
    assert message.digest == (digest or b"")
    assert not len(unknown_fields.UnknownFieldSet(message))


@given(
    payload=st.binary(max_size=300),
    index=st.integers(0, UINT32),
    total=st.integers(0, 2**64 - 1),
    consumed=st.none() | st.floats(0, 100, width=32),
    tail=st.sampled_from([b"", b"\xc2\x3e\x03abc", b"\xc0\x3e\x07", b"\xc5\x3e1234", b"\xc1\x3e12345678"]),
)
def test_what_protobuf_writes_is_read_by_hand_whatever_is_unknown(payload, index, total, consumed, tail) -> None:
    message = pb.WeightsPart(weights=payload, byte_index=index, total_bytes=total)
    if consumed is not None:
        message.training_summary.dp_budget.consumed_epsilon = consumed
    part = parse_part(tail + message.SerializeToString() + tail)
    assert (bytes(part.payload), part.offset, part.total) == (payload, index, total)
    if consumed is None:
        assert part.summary is None
    else:
        assert part.summary is not None
        assert pb.TrainingSummary.FromString(part.summary).dp_budget.consumed_epsilon == consumed


@given(st.binary(max_size=64))
def test_any_bytes_are_a_part_or_a_wire_error(data: bytes) -> None:
    try:
        part = parse_part(data)
    except WireError:
        return
    assert part.payload.nbytes <= len(data)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"\x0a\x05abc", "ends inside its field 1"),
        (b"\x0a", "does not end"),
        (b"\x10" + b"\xff" * 11, "does not end"),
        (b"\x08\x01", "field 1 of a WeightsPart is a number"),
        (b"\x1a\x01a", "field 3 of a WeightsPart is no number"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x02\x00", "number 0"),
        (b"\x0d\x00", "ends inside"),
    ],
)
def test_a_malformed_part_is_refused(message: bytes, error: str) -> None:
    with pytest.raises(WireError, match=error):
        parse_part(message)


def part(offset: int, size: int, total: int) -> Part:
    return Part(payload=memoryview(bytes(size)), offset=offset, total=total)


@pytest.mark.parametrize(
    ("parts", "error", "kind"),
    [
        ([], "held no part", WireError),
        ([part(0, 5, 101)], "announce 101 bytes, the limit here is 100", TooLargeError),
        ([part(0, 5, 2**64 - 1)], "the limit here is 100", TooLargeError),
        ([part(0, 5, 10)], "ended at byte 5 of 10", WireError),
        ([part(0, 5, 10), part(4, 5, 10)], "starts at byte 4, the one before ended at 5", WireError),
        ([part(0, 5, 10), part(6, 4, 10)], "starts at byte 6", WireError),
        ([part(0, 5, 10), part(0, 5, 10)], "starts at byte 0", WireError),
        ([part(5, 5, 10)], "starts at byte 5", WireError),
        ([part(0, 5, 10), part(5, 6, 10)], "more than the announced 10", WireError),
        ([part(0, 5, 10), part(5, 5, 11)], "10 bytes in the first part, 11 in a later one", WireError),
        ([part(0, 5, 10), part(5, 0, 10)], "an empty part at byte 5", WireError),
        ([part(0, 10, 10), part(10, 0, 10)], "an empty part", WireError),
    ],
)
def test_a_stream_that_lies_is_refused(parts: list[Part], error: str, kind: type[WireError]) -> None:
    sequence = PartSequence(limit=100)
    with pytest.raises(kind, match=error):
        for one in parts:
            sequence.take(one)
        sequence.finish()


@given(
    data=st.binary(min_size=1, max_size=500),
    size=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 500), max_size=5),
)
def test_pieces_become_the_same_parts_as_the_whole_and_the_whole_again(data, size, cuts) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [memoryview(data)[a:b] for a, b in itertools.pairwise(edges)]
    parts = list(cut_into_parts(pieces, total=len(data), summary=b"\x08\x01", part_bytes=size))
    assert parts == list(encode_parts(data, summary=b"\x08\x01", part_bytes=size))
    assembly = Assembly(limit=len(data))
    for message in parts:
        assembly.take(message)
    buffer, claimed = assembly.finish()
    assert buffer == data
    assert claimed is None
    assert assembly.summary == b"\x08\x01"


def test_what_the_sender_calls_the_weights_is_handed_on() -> None:
    assembly = Assembly(limit=10)
    assembly.take(encode_part(b"abc", offset=0, total=3, digest=b"name"))
    assert assembly.finish() == (b"abc", b"name")


def test_what_the_machine_has_no_memory_for_is_too_large() -> None:
    assembly = Assembly(limit=2**62)
    with pytest.raises(TooLargeError, match="no memory"):
        assembly.take(encode_part(b"abc", offset=0, total=2**61))
