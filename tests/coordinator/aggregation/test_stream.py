"""Streams folded in step: the result is numpy's on whole arrays, offenders are named, memory does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from collective_coordinator.aggregation.reduce import fold, mean
from collective_coordinator.aggregation.stream import Inflow, OffenceError, folded, read_layout, require_same
from collective_learner.wire.parts import encode_parts, parse_part

LIMIT = 1 << 30


async def parts(data: bytes, part_bytes: int) -> AsyncIterator[bytes]:
    for part in encode_parts(data, part_bytes=part_bytes, summary=b"\xa0\x06\x05"):
        await asyncio.sleep(0)
        yield part


async def average(streams: list[AsyncIterator[bytes]], piece_bytes: int = 64) -> bytes:
    inflows = [Inflow(index, stream, limit=LIMIT) for index, stream in enumerate(streams)]
    layout = require_same(await asyncio.gather(*map(read_layout, inflows)))
    weights = np.ones(len(streams))

    def step(pieces, dtype, offset):
        return fold(mean, pieces, dtype, weights)

    with ThreadPoolExecutor(1) as executor:
        stream = folded(inflows, layout, step, executor=executor, piece_bytes=piece_bytes)
        out = [parse_part(part) async for part in stream]
    assert [part.offset for part in out] == list(np.cumsum([0, *(part.payload.nbytes for part in out)])[:-1])
    assert all(inflow.summary for inflow in inflows)
    return b"".join(part.payload for part in out)


def model(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(7, 13)).astype(np.float32),
        "n": np.array(seed, np.int64),
        "h": rng.normal(size=33).astype(np.float16),
        "e": np.zeros((0, 3), np.float32),
        "d": rng.normal(size=(3, 3)),
        "b": np.array([True, seed > 1]),
    }


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 300), min_size=3, max_size=3), st.integers(8, 200))
def test_any_cutting_of_the_streams_gives_the_mean(cuts, piece_bytes):
    models = [model(seed) for seed in range(3)]
    streams = [parts(save(tensors), cut) for tensors, cut in zip(models, cuts, strict=True)]
    result = load(asyncio.run(average(streams, piece_bytes)))
    for name in ("w", "d", "h"):
        expected = np.mean([tensors[name].astype(np.float64) for tensors in models], axis=0)
        np.testing.assert_allclose(result[name], expected, rtol=2e-3 if name == "h" else 1e-5, atol=1e-3)
    assert result["n"] == 1 and result["b"].tolist() == [True, False] and result["e"].shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(w=np.zeros((7, 14), np.float32)), "'w' has the shape"),
        (lambda m: m.pop("d"), "'d' is missing"),
        (lambda m: m.update(w=m["w"].astype(np.float64)), "'w' has the type"),
    ],
)
@pytest.mark.parametrize("offender", [0, 2])
def test_the_learner_that_differs_is_named(change, says, offender):
    models = [model(seed) for seed in range(4)]
    change(models[offender])
    with pytest.raises(OffenceError, match=says) as error:
        asyncio.run(average([parts(save(tensors), 100) for tensors in models]))
    assert error.value.index == offender


@pytest.mark.parametrize("cut", [3, 60, 400, -1])
def test_a_stream_that_breaks_off_is_named(cut):
    data = save({"w": np.zeros(1000, np.float32)})

    async def broken() -> AsyncIterator[bytes]:
        sent = 0
        for part in encode_parts(data, part_bytes=50):
            if sent > (cut % len(data)):
                return
            sent += parse_part(part).payload.nbytes
            if sent < len(data):
                yield part

    with pytest.raises(OffenceError) as error:
        asyncio.run(average([parts(save(model(0)), 100), broken()]))
    assert error.value.index == 1


def test_a_fast_stream_waits_for_the_slow_one():
    data = save({"w": np.zeros(1 << 16, np.float32)})
    ahead: list[int] = []
    taken = [0, 0]

    async def counted(index: int, pace: float) -> AsyncIterator[bytes]:
        async for part in parts(data, 1 << 12):
            await asyncio.sleep(pace)
            taken[index] += 1
            ahead.append(taken[0] - taken[1])
            yield part

    asyncio.run(average([counted(0, 0), counted(1, 0.0005)], piece_bytes=1 << 12))
    assert max(ahead) <= 3


def test_a_failing_fold_ends_the_stream():
    def boom(pieces, dtype, offset):
        raise ArithmeticError(dtype)

    async def run() -> None:
        inflows = [Inflow(0, parts(save(model(0)), 100), limit=LIMIT)]
        layout = await read_layout(inflows[0])
        with ThreadPoolExecutor(1) as executor:
            async for _ in folded(inflows, layout, partial(boom), executor=executor):
                pass

    with pytest.raises(ArithmeticError):
        asyncio.run(run())


def test_a_stream_that_breaks_off_leaves_no_reader_on_the_others():
    """Whoever folds closes all streams then, and a generator that is being read cannot be closed."""
    data = save({"w": np.zeros(1000, np.float32)})

    async def broken() -> AsyncIterator[bytes]:
        async for part in parts(data[:-200], 64):
            yield part

    async def stalled() -> AsyncIterator[bytes]:
        for sent, part in enumerate(encode_parts(data, part_bytes=64, summary=b"\xa0\x06\x05")):
            if sent * 64 > len(data) - 500:
                await asyncio.Event().wait()
            yield part

    async def check() -> None:
        streams = [broken(), stalled()]
        with pytest.raises(OffenceError):
            await average(streams, piece_bytes=1 << 20)
        for stream in streams:
            await stream.aclose()

    asyncio.run(asyncio.wait_for(check(), 30))
