"""A stream that may be weights at hand: compared as long as it is, kept from where it is not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collective_learner.mli import Weights
from collective_learner.wire.assembly import Assembly
from collective_learner.wire.codec import decode, encode
from collective_learner.wire.parts import encode_parts

KNOWN = Weights({"a": np.arange(37, dtype=np.float32), "b": np.arange(9, dtype=np.uint8), "none": np.zeros((0, 2))})
ENCODED = encode(KNOWN)
DATA = ENCODED.to_bytes()


def receive(data: bytes, part_bytes: int, *, hash_in_step: bool) -> tuple[Assembly, bytes, bytes]:
    assembly = Assembly(limit=10_000, known=ENCODED)
    for part in encode_parts(data, part_bytes=part_bytes):
        assembly.take(part)
        if hash_in_step:
            assembly.hash_next()
    buffer, digest = assembly.finish()
    return assembly, bytes(buffer), digest


@given(st.integers(1, 700), st.booleans())
def test_what_is_known_needs_no_buffer(part_bytes: int, hash_in_step: bool) -> None:
    assembly, buffer, digest = receive(DATA, part_bytes, hash_in_step=hash_in_step)
    assert assembly.known is ENCODED
    assert buffer == b""
    assert digest == hashlib.sha256(DATA).digest()


@given(st.integers(0, len(DATA) - 1), st.integers(1, 700), st.booleans())
def test_what_differs_anywhere_is_received_as_it_came(at: int, part_bytes: int, hash_in_step: bool) -> None:
    data = bytearray(DATA)
    data[at] ^= 1
    assembly, buffer, digest = receive(bytes(data), part_bytes, hash_in_step=hash_in_step)
    assert assembly.known is None
    assert buffer == bytes(data)
    assert digest == hashlib.sha256(data).digest()


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b"", b"y"])
def test_another_length_is_other_weights(data: bytes) -> None:
    if data:
        assembly, buffer, _ = receive(data, 100, hash_in_step=True)
        assert assembly.known is None
        assert buffer == data
    assert b"".join(ENCODED.between(0, len(data))) == DATA[: len(data)]


@pytest.mark.parametrize("weights", [KNOWN, Weights([*KNOWN.weights.values()]), Weights({"t": np.ones((3, 4)).T})])
def test_what_is_encoded_is_given_as_arrays_that_cannot_be_written(weights: Weights) -> None:
    encoded = encode(weights)
    decoded = decode(encoded.to_bytes()).weights
    views = encoded.weights.weights
    assert type(views) is type(decoded)
    if isinstance(views, dict):
        assert list(views) == list(decoded)
        views, decoded = views.values(), decoded.values()
    for view, array in zip(views, decoded, strict=True):
        assert np.array_equal(view, array)
        assert not view.flags.writeable
        assert any(np.shares_memory(view, piece) for piece in encoded.pieces) or not view.size
    assert KNOWN.weights["a"].flags.writeable


def test_a_proposal_that_comes_back_is_tested_and_accepted_like_any_other(peer) -> None:
    data, _ = peer.propose()
    verdict = peer.test(data)
    assert (verdict.vote_score, verdict.vote) == (1.5, True)
    assert verdict.digest == hashlib.sha256(data).digest()
    peer.accept(verdict.digest)
    assert peer.current() == data
    other, _ = peer.propose()
    assert not peer.test(data).vote
    assert peer.test(other).vote
    peer.set(other)
    assert peer.current() == other
