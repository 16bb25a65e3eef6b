"""Pickled weights: read as real picklers write them, run as nothing, whatever a peer sends."""

from __future__ import annotations

import gc
import importlib
import io
import itertools
import os
import pickle
import pickletools
import struct
import sys
import threading
import tracemalloc
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from collective_learner.mli import Weights
from collective_learner.wire import pickle_reader
from collective_learner.wire.parts import WireError
from collective_learner.wire.pickled import decode_pickled, encode_pickled

PROTOCOLS = [2, 3, 4, 5]
DTYPES = ["?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", "<f4", ">f4", "<f8", "<c8"]

SEEN: list[str] = []
WATCHED = 0
"""The thread that is being watched; what others do, and what the collector finds meanwhile, is no reader's doing."""
# Whatever could run, open or look up something raises one of these in the interpreter itself.
EVENTS = (
    "import",
    "exec",
    "compile",
    "pickle.find_class",
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "marshal.",
    "ctypes.",
)


def _watch(event: str, _: object) -> None:
    if threading.get_ident() == WATCHED and event.startswith(EVENTS):
        SEEN.append(event)


sys.addaudithook(_watch)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail when anything is imported, opened, compiled or looked up meanwhile."""
    global WATCHED  # noqa: PLW0603 - an audit hook cannot be taken away
    SEEN.clear()
    modules = set(sys.modules)
    gc.disable()
    WATCHED = threading.get_ident()
    try:
        yield
    finally:
        WATCHED = 0
        gc.enable()
    assert SEEN == []
    assert set(sys.modules) == modules


def read(data: bytes, count: int, names: tuple[str, ...] | None = None):
    with nothing_runs():
        return decode_pickled(data, names=names, count=count).weights


def same(found: np.ndarray, array: np.ndarray) -> bool:
    return (
        found.dtype == array.dtype.newbyteorder("=")
        and found.shape == array.shape
        and not found.flags.writeable
        and found.flags.aligned
        and np.array_equal(found, array, equal_nan=array.dtype.kind in "fc")
    )


arrays = stn.arrays(
    dtype=st.sampled_from(DTYPES), shape=stn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(arrays, max_size=4), st.sampled_from(PROTOCOLS), st.sampled_from(["C", "F", "view", "turned"]))
def test_what_numpy_pickles_is_read(given_arrays: list[np.ndarray], protocol: int, layout: str) -> None:
    laid = {
        "C": lambda array: array,
        "F": np.asfortranarray,
        "view": lambda array: array[::-1] if array.ndim else array,
        "turned": lambda array: np.moveaxis(array, 0, -1) if array.ndim > 1 else array,
    }
    values = [laid[layout](array) for array in given_arrays]
    names = tuple(f"n{index}" for index in range(len(values)))
    for whole in (values, tuple(values), dict(zip(names, values, strict=True))):
        data = pickle.dumps(whole, protocol=protocol)
        found = read(data, len(values))
        assert list(found) == (list(names) if isinstance(whole, dict) else list(found))
        items = found.values() if isinstance(whole, dict) else found
        assert all(same(one, array) for one, array in zip(items, values, strict=True))
    by_name = read(pickle.dumps(values, protocol=protocol), len(values), names)
    assert list(by_name) == list(names)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_before_and_since_numpy_2_are_read(protocol: int) -> None:
    values = [np.float32(1.5), np.int64(-3), np.bool_(True), np.array(2.5), np.arange(300.0), np.arange(70000.0)]
    data = pickle.dumps(values, protocol=protocol)
    older = (
        data.replace(b"numpy._core.", b"numpy.core.")
        if protocol < 4
        else data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray").replace(
            b"\x13numpy._core.numeric", b"\x12numpy.core.numeric"
        )
    )
    for each in (data, older):
        assert all(same(one, np.asarray(value)) for one, value in zip(read(each, 6), values, strict=True))
    assert older != data


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_python_s_own_pickler_is_read_too(protocol: int) -> None:
    written = io.BytesIO()
    value = np.arange(12.0).reshape(3, 4)
    pickle._Pickler(written, protocol).dump([value, value])
    first, second = read(written.getvalue(), 2)
    assert first is second  # as they were: tied weights cost one array
    assert same(first, value)


@settings(max_examples=50, deadline=None)
@given(st.lists(arrays, max_size=4), st.booleans())
def test_what_is_written_any_numpy_unpickles(values: list[np.ndarray], named: bool) -> None:
    given_weights = {f"n{index}": array for index, array in enumerate(values)} if named else values
    encoded = encode_pickled(Weights(given_weights))
    data = encoded.to_bytes()
    assert len(data) == encoded.total
    assert b"numpy._core" not in data  # which numpy before 2 has not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy 2 about the name that numpy 1 needs
        unpickled = pickle.loads(data)
    assert isinstance(unpickled, list)
    assert all(
        one.dtype == array.dtype.newbyteorder("<")
        and one.shape == array.shape
        and np.array_equal(one, array, equal_nan=array.dtype.kind in "fc")
        for one, array in zip(unpickled, values, strict=True)
    )
    assert all(same(one, array) for one, array in zip(read(data, len(values)), values, strict=True))


def test_large_arrays_are_not_copied_when_they_are_written() -> None:
    array = np.zeros(4_000_000, dtype=np.float32)
    pieces = encode_pickled(Weights([array])).pieces
    assert any(np.shares_memory(np.frombuffer(piece, dtype=np.uint8), array) for piece in pieces)


class Runs:
    """Runs a command when it is unpickled by anything that unpickles."""

    def __reduce__(self):
        return (os.system, ("exit 7",))


class OwnDict(dict):
    pass


def _bfloat16() -> np.ndarray:
    return np.zeros(2, dtype=importlib.import_module("ml_dtypes").bfloat16)


def out_of_band() -> bytes:
    return pickle.dumps([np.zeros(3)], protocol=5, buffer_callback=lambda buffer: None)


REFUSED = {
    "a command": (lambda: pickle.dumps([Runs()]), r"refer to '(posix|nt)\.system'"),
    "a command by lines": (lambda: b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueR.", r"refer to 'os\.system'"),
    "a class": (lambda: pickle.dumps([OwnDict()]), "OwnDict"),
    "an ordered dict": (lambda: pickle.dumps(OrderedDict(a=np.zeros(1))), r"collections\.OrderedDict"),
    "objects": (lambda: pickle.dumps([np.array([None, {}], dtype=object)]), "pickled weights hold objects; admitted"),
    "text": (lambda: pickle.dumps([np.array(["a"])]), "the type 'U1'; admitted are b1"),
    "records": (lambda: pickle.dumps([np.zeros(1, dtype=[("a", "f4")])]), "the type 'V4'"),
    "dates": (lambda: pickle.dumps([np.zeros(1, dtype="M8[s]")]), "the type 'M8'"),
    "long doubles": (lambda: pickle.dumps([np.zeros(1, dtype=np.longdouble)]), "the type 'f16'"),
    "bfloat16": (lambda: pickle.dumps([_bfloat16()]), r"refer to 'ml_dtypes\.bfloat16'|the type"),
    "buffers elsewhere": (out_of_band, "use the instruction NEXT_BUFFER"),
    "plain numbers": (lambda: pickle.dumps([1, 2]), "the tensor '0' in pickled weights is no array"),
    "floats": (lambda: pickle.dumps([1.5]), "the instruction BINFLOAT"),
    "an array alone": (lambda: pickle.dumps(np.zeros(3)), "must be a list, a tuple or a dict"),
    "lists in lists": (lambda: pickle.dumps([[np.zeros(3)]]), "the tensor '0' in pickled weights is no array"),
    "names that are numbers": (lambda: pickle.dumps({1: np.zeros(3)}), "a name that is no text"),
    "sets": (lambda: pickle.dumps({1, 2}, protocol=4), "the instruction EMPTY_SET"),
    "protocol 0": (lambda: pickle.dumps([np.zeros(3)], protocol=0), "no pickle of protocols 2 to 5"),
    "protocol 6": (lambda: b"\x80\x06].", "no pickle of protocols 2 to 5"),
    "safetensors": (lambda: b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "no pickle of protocols 2 to 5"),
    "nothing": (lambda: b"", "end in the middle"),
    "more after the end": (lambda: pickle.dumps([]) + b"x", "end at byte"),
    "another number": (lambda: pickle.dumps([np.zeros(1), np.zeros(1)]), "are 2 tensors, the model has 1"),
    "endless instructions": (lambda: b"\x80\x04]" + b"\x94" * 100_000 + b".", "go on after 1144 instructions"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_list_of_arrays_is_refused_and_not_run(what: str) -> None:
    make, told = REFUSED[what]
    if what == "bfloat16":
        pytest.importorskip("ml_dtypes")
    data = make()
    with pytest.raises(WireError, match=told):
        read(data, 1)


def test_bfloat16_is_not_written() -> None:
    pytest.importorskip("ml_dtypes")
    with pytest.raises(WireError, match="'w' is of bfloat16"):
        encode_pickled(Weights({"w": _bfloat16()}))
    with pytest.raises(WireError, match="object"):
        encode_pickled(Weights([np.array([None])]))


def test_bytes_told_once_and_referred_to_often_cost_once() -> None:
    """A small pickle must not become large arrays: neither by its memo, nor by texts that stand for bytes."""
    size = 1 << 20
    array = pickle.dumps([np.zeros(size, dtype=np.uint8)], protocol=5)
    head, tail = array[11:-1], array[-1:]  # without protocol and frame
    # The same bytes (memo 4) as an array once more, and again: `_frombuffer(bytes, dtype, (size,), "C")`.
    again = b"h\x03(h\x04h\x0ah\x0dh\x0et\x94Ra"
    data = b"\x80\x05" + head + again * 5 + tail
    assert len(pickle.loads(data)) == 6  # which is what pickle itself makes of it
    with pytest.raises(WireError, match="refer to the same bytes more than once"):
        read(data, 6)
    text = b"X" + struct.pack("<I", size) + b"a" * size
    decoded = b"\x80\x02c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1\x86R"
    again = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R"
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="refer to the same bytes more than once"):
            decode_pickled(decoded + again * 8 + b".", names=None, count=8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * size


def test_one_wide_character_does_not_widen_the_rest() -> None:
    size = 1 << 22
    text = b"a" * size + "\U0001f600".encode()
    data = b"\x80\x02c_codecs\nencode\nX" + struct.pack("<I", len(text)) + text + b"X\x06\x00\x00\x00latin1\x86R."
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="not what protocol 2 writes"):
            decode_pickled(data, names=None, count=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * size


SAMPLES = [
    pickle.dumps(value, protocol=protocol)
    for protocol in PROTOCOLS
    for value in (
        [np.arange(3, dtype="f4"), np.asfortranarray(np.ones((2, 2))), np.float32(3)],
        {"a": np.zeros(0, ">i2"), "b": np.ones((2, 3, 4)).transpose(1, 0, 2), "c": np.array(True)},
    )
] + [encode_pickled(Weights([np.arange(3.0), np.array(1)])).to_bytes()]


def survives(data: bytes) -> None:
    """Reading ends well or with a WireError, and runs nothing either way."""
    with nothing_runs():
        try:
            found = decode_pickled(data, names=None, count=3).weights
        except WireError:
            return
    assert all(
        isinstance(array, np.ndarray) and array.dtype.kind in "biufc"
        for array in (found.values() if isinstance(found, dict) else found)
    )


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_changed_pickles_end_in_a_wire_error(sample: bytes, data: st.DataObject) -> None:
    changed = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        piece = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([bytes([code]) for code in pickle_reader._INSTRUCTIONS]))
        )
        changed[at : at + data.draw(st.integers(0, 4))] = piece
        if not changed:
            break
    survives(bytes(changed))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_end_in_a_wire_error(tail: bytes) -> None:
    survives(tail)
    survives(b"\x80\x04" + tail)


def _pieces() -> list[bytes]:
    """Cut the samples into whole instructions, so that they can be put together in other ways."""
    found = set()
    for sample in SAMPLES:
        places = [place for _, _, place in pickletools.genops(sample)] + [len(sample)]
        found |= {sample[a:b] for a, b in itertools.pairwise(places) if sample[a] not in b"\x80\x95"}
    return sorted(found)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_pieces()), max_size=40))
def test_whole_instructions_in_any_order_end_in_a_wire_error(pieces: list[bytes]) -> None:
    survives(b"\x80\x04" + b"".join(pieces))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_instructions_left_out_doubled_and_swapped_end_in_a_wire_error(sample: bytes, data: st.DataObject) -> None:
    places = [place for _, _, place in pickletools.genops(sample)] + [len(sample)]
    pieces = [sample[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(data.draw(st.integers(1, 4))):
        at, other = (data.draw(st.integers(1, len(pieces) - 1)) for _ in range(2))
        how = data.draw(st.sampled_from(["drop", "double", "swap"]))
        if how == "drop" and len(pieces) > 3:
            del pieces[at]
        elif how == "double":
            pieces.insert(at, pieces[at])
        else:
            pieces[at], pieces[other % len(pieces)] = pieces[other % len(pieces)], pieces[at]
    survives(b"".join(pieces))
