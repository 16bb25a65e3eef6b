"""Headers of safetensors streams: read as safetensors writes them, refused when they lie, compared tensor by tensor."""

from __future__ import annotations

import contextlib
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from collective_coordinator.aggregation.layout import (
    MAX_HEADER_BYTES,
    LayoutError,
    header_bytes,
    parse_layout,
)


def layout_of(data: bytes):
    return parse_layout(data[: header_bytes(data[:8])])


def raw(entries) -> bytes:
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header


def test_what_safetensors_writes_is_read():
    tensors = {"w": np.zeros((3, 4), np.float32), "n": np.array(7), "b": np.zeros((0,), np.float32)}
    data = save(tensors, metadata={"kind": "dict"})
    layout = layout_of(data)
    assert {tensor.name: tensor.shape for tensor in layout.tensors} == {"w": (3, 4), "n": (), "b": (0,)}
    assert layout.total_bytes == len(data)
    assert sum(run.end - run.begin for run in layout.runs()) == layout.body_bytes


def test_neighbours_of_one_type_are_one_run():
    layout = layout_of(save({"a": np.zeros(3, np.float32), "b": np.zeros(5, np.float32), "c": np.zeros(2, np.int64)}))
    assert sorted((run.dtype, run.end - run.begin) for run in layout.runs()) == [("F32", 32), ("I64", 16)]


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ({"w": np.zeros((4, 3), np.float32)}, r"tensor 'w' has the shape \[4, 3\], the others have \[3, 4\]"),
        ({"w": np.zeros((3, 4), np.float64)}, "tensor 'w' has the type F64, the others have F32"),
        ({"v": np.zeros((3, 4), np.float32)}, "tensor 'w' is missing"),
        ({"w": np.zeros((3, 4), np.float32), "v": np.zeros(1)}, "tensor 'v' is known to no other"),
    ],
)
def test_differences_name_the_tensor(theirs, says):
    mine = layout_of(save({"w": np.zeros((3, 4), np.float32)}))
    difference = mine.difference(layout_of(save(theirs)))
    assert difference is not None
    assert re.search(says, difference)
    assert mine.difference(layout_of(save({"w": np.ones((3, 4), np.float32)}))) is None


def test_what_grows_is_told_with_the_most_that_it_may_become():
    tensors = {"nodes": np.zeros((3, 2), np.float32), "base": np.zeros(2)}
    data = save(tensors, metadata={"collective.growing": '{"nodes": 40}'})
    layout = layout_of(data)
    assert layout.growing == {"nodes": 40}
    assert layout.most_bytes == len(data) + 37 * 2 * 4
    plain = layout_of(save(tensors))
    assert (plain.growing, plain.most_bytes) == ({}, len(save(tensors)))


@pytest.mark.parametrize(
    "told", ['{"nodes": 2}', '{"nodes": true}', '{"other": 9}', '{"scalar": 9}', "[]", "{", "[" * 9999]
)
def test_lies_about_what_grows_are_refused(told):
    data = save({"nodes": np.zeros((3, 2)), "scalar": np.zeros(())}, metadata={"collective.growing": told})
    with pytest.raises(LayoutError):
        layout_of(data)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "no JSON object"),
        ({"w": {}}, "tensor 'w' lacks"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}}, "'w' of shape"),
        ({"w": {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 8]}}, "type OBJECT"),
        ({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "impossible shape"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "'w' starts at byte 4"),
        (
            {
                "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            "'v' starts at byte 4",
        ),
    ],
)
def test_lying_headers_are_refused(entries, says):
    with pytest.raises(LayoutError, match=says):
        parse_layout(raw(entries))


def test_an_absurd_header_is_refused_before_it_is_awaited():
    with pytest.raises(LayoutError, match="header of"):
        header_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_layout_or_a_layout_error(data):
    with contextlib.suppress(LayoutError):
        parse_layout(data)
