"""After a rejection a proposal goes less far from the weights held, in every type that has a half way."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from safetensors.numpy import save

from collective_coordinator.aggregation.backtrack import share_of_way, shortened
from collective_coordinator.aggregation.layout import Layout, header_bytes, parse_layout
from collective_coordinator.aggregation.reduce import decode, encode
from collective_coordinator.errors import LearnerError
from collective_coordinator.spool import StoredWeights
from collective_coordinator.strategies.held import HeldWeights


def test_the_way_is_halved_three_times_and_then_whole_again():
    assert [Fraction(share_of_way(rejected)) for rejected in range(6)] == [
        Fraction(1, part) for part in (1, 2, 4, 8, 1, 2)
    ]


@pytest.fixture
def held(tmp_path):
    def keep(**arrays: np.ndarray) -> tuple[StoredWeights, Layout]:
        path, data = tmp_path / "weights", save(arrays)
        path.write_bytes(data)
        layout = parse_layout(data[: header_bytes(data[:8])])
        return StoredWeights(path=path, size=len(data), digest=b""), layout

    return keep


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floating_numbers_go_a_share_of_the_way_from_where_they_are_held(held, dtype):
    kind = {"float16": "F16", "float32": "F32", "float64": "F64"}[dtype]
    stored, layout = held(w=np.array([0, 8, -4, 2], dtype))
    step = shortened(lambda pieces, _dtype, _begin: bytes(pieces[0]), 0.25, HeldWeights(stored, layout).read)
    whole = encode(np.array([4.0, 0.0]), kind)
    # The second half of the tensor: pieces begin anywhere.
    moved = decode(step([memoryview(whole)], kind, 2 * np.dtype(dtype).itemsize), kind)
    assert moved.tolist() == [-4 + 0.25 * 8, 2 - 0.25 * 2]
    assert moved.dtype == (np.float64 if dtype == "float64" else np.float32)


def test_counters_and_truth_values_have_no_half_way(held):
    stored, layout = held(flag=np.array([True, False]), steps=np.array([10, 20]))
    step = shortened(lambda pieces, _dtype, _begin: bytes(pieces[0]), 0.5, HeldWeights(stored, layout).read)
    for dtype, piece in (("BOOL", np.array([False, True])), ("I64", np.array([11, 99]))):
        assert step([memoryview(piece.tobytes())], dtype, 0) == piece.tobytes()


def test_another_model_than_the_held_one_is_refused_by_name(held):
    other = held(w=np.zeros(4, np.float32))[1]
    stored, _ = held(w=np.zeros(3, np.float32))
    with pytest.raises(LearnerError, match=r"another model than the current one: .*w"):
        HeldWeights(stored, other)
