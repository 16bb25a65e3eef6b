"""A proposal on its way: the very bytes, in bounded memory, at everyone's own pace."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from collective_coordinator.attempt import read_ballot
from collective_coordinator.board import MOST_BYTES, fitted
from collective_coordinator.errors import LearnerError
from collective_coordinator.fanout import WINDOW_BYTES, Relay, RelayAbortedError
from collective_coordinator.scores import finite, mean
from collective_coordinator.spool import Spool, parts_of
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.parts import PartSequence, encode_part, encode_parts, parse_part


async def source(messages, *, pause=None):
    for message in messages:
        if pause is not None:
            await pause.wait()
        yield message


@pytest.fixture
def relay(tmp_path):
    spool = Spool(tmp_path / "spool")
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(2) as readers:
        yield Relay(spool, limit=1 << 30, writer=writer, readers=readers)
    spool.discard()


def joined(messages: list[bytes]) -> bytes:
    sequence, content = PartSequence(limit=1 << 30), b""
    for message in messages:
        part = parse_part(message)
        sequence.take(part)
        content += bytes(part.payload)
    sequence.finish()
    return content


async def test_the_very_bytes_go_through(relay):
    data = bytes(range(256)) * 10_000
    messages = list(encode_parts(data, summary=b"\x0a\x00", digest=blake3(data).digest(), part_bytes=300_000))
    # Fields that nobody here knows go through as well.
    messages[1] += b"\xf2\x3f\x03abc"

    async def read():
        return [message async for message in relay.reader()]

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await relay.pump(source(messages))
    stored = await relay.stored()
    assert [await reader for reader in readers] == [messages] * 3
    assert (stored.size, stored.digest) == (len(data), blake3(data).digest())
    assert stored.path.read_bytes() == data
    assert relay.summary == b"\x0a\x00"


async def test_who_lags_reads_from_the_spool_and_nothing_piles_up(relay):
    total = 6 * WINDOW_BYTES
    data = bytes(range(32)) * (total // 32)
    slow = relay.reader()
    pumping = asyncio.create_task(relay.pump(source(encode_parts(data, summary=b"\x0a\x00"))))
    first = await anext(slow)
    async for _ in relay.reader():  # the fastest keeps pace
        pass
    await pumping  # the slow reader holds nobody up
    stored = await relay.stored()
    assert sum(len(slot.message) for slot in relay._window) <= WINDOW_BYTES
    messages = [first] + [message async for message in slow]
    assert joined(messages) == data == stored.path.read_bytes()
    late = [message async for message in relay.reader()]
    assert joined(late) == data
    assert parse_part(late[0]).summary == b"\x0a\x00"


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "held no part"),
        ([b"\xff\xff\xff"], "cannot be used"),
        ([encode_part(b"", offset=0, total=0)], "announce 0 bytes"),
        ([encode_part(b"abc", offset=0, total=5)], "ended at byte 3 of 5"),
        ([encode_part(b"abc", offset=0, total=5), encode_part(b"bc", offset=1, total=5)], "starts at byte 1"),
        ([encode_part(b"abc", offset=0, total=2)], "more than the announced"),
        ([encode_part(b"abc", offset=0, total=1 << 40)], "the limit here is"),
    ],
)
async def test_a_stream_that_lies_is_refused_and_its_readers_called_off(relay, messages, told):
    async def read():
        return [message async for message in relay.reader()]

    reader = asyncio.create_task(read())
    with pytest.raises(LearnerError, match=told):
        await relay.pump(source(messages))
    with pytest.raises(RelayAbortedError):
        await reader


async def test_weights_that_are_not_what_their_sender_calls_them_are_refused(relay):
    await relay.pump(source([encode_part(b"abc", offset=0, total=3, digest=b"\x01" * 32)]))
    with pytest.raises(LearnerError, match="do not have the digest"):
        await relay.stored()


async def test_a_disk_that_takes_no_more_ends_the_proposal(tmp_path):
    (tmp_path / "spool").symlink_to("/dev/full")
    spool = Spool(tmp_path / "spool")
    with ThreadPoolExecutor(1) as threads:
        relay = Relay(spool, limit=1 << 30, writer=threads, readers=threads)
        with pytest.raises(OSError, match="No space left on device"):
            await relay.pump(source(encode_parts(b"abc")))
    with pytest.raises(RelayAbortedError):
        await anext(relay.reader())
    spool.discard()


async def test_a_cancelled_proposal_leaves_no_thread_writing(relay):
    pause = asyncio.Event()
    pumping = asyncio.create_task(relay.pump(source(encode_parts(b"abc"), pause=pause)))
    await asyncio.sleep(0)
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping
    assert not await relay.begun()


async def test_stored_weights_are_sent_in_parts_with_their_digest(tmp_path):
    data = bytes(3_000_000)
    spool = Spool(tmp_path / "spool")
    spool.append(memoryview(data))
    with ThreadPoolExecutor(1) as readers:
        messages = [message async for message in parts_of(spool.stored(), readers=readers)]
    spool.discard()
    assert joined(messages) == data
    *before, last = [parse_part(message).digest for message in messages]
    assert before == [None] * 5
    assert last == blake3(data).digest()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (pb.ProposedWeights(vote_score=math.nan), "vote score"),
        (pb.ProposedWeights(test_score=math.inf), "test score"),
    ],
)
def test_a_ballot_that_cannot_count(answer, told):
    with pytest.raises(LearnerError, match=told):
        read_ballot(answer)


def test_a_ballot_keeps_the_digits_that_a_float_has():
    ballot = read_ballot(pb.ProposedWeights(vote_score=0.94, test_score=1 / 3, vote=True))
    assert (ballot.vote_score, ballot.test_score, ballot.vote) == (0.94, 0.3333333, True)


@given(st.text(max_size=6000), st.integers(0, 300))
def test_the_last_word_always_fits(message, count):
    document = {
        "version": 1,
        "uid": "u",
        "phase": "Failed",
        "reason": "R",
        "message": message,
        "learners": [{"name": f"learner-{i}", "message": "x" * 20} for i in range(count)],
    }
    encoded = fitted(document)
    assert len(encoded) <= MOST_BYTES
    told = json.loads(encoded)
    assert told["phase"] == "Failed"
    whole = len(json.dumps(document, separators=(",", ":")).encode()) <= MOST_BYTES
    assert ("learners" in told) == whole
    if not whole and told["message"] != message:
        assert message.startswith(told["message"].removesuffix("..."))


def test_numbers_that_json_has_not():
    assert mean([]) is None
    assert mean([0.1] * 10) == 0.1
    assert (finite(math.nan), finite(math.inf), finite(None), finite(0.5)) == (None, None, None, 0.5)
