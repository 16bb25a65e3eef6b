from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collective_learner.mli import Weights
from collective_learner.wire.codec import decode, encode
from collective_learner.wire.header import MAX_HEADER_BYTES
from collective_learner.wire.parts import WireError

DTYPES = ["?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8", "<c8", ">f4", ">i8", ">u2"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
LAYOUTS = st.sampled_from(["as is", "transposed", "fortran", "reversed", "every second", "read-only"])


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "transposed":
        return array.T
    if layout == "fortran":
        return np.asfortranarray(array) if array.ndim else array
    if layout == "reversed":
        return array[::-1] if array.ndim else array
    if layout == "every second":
        return array[..., ::2] if array.ndim else array
    if layout == "read-only":
        array.flags.writeable = False
    return array


def same(left: np.ndarray, right: np.ndarray) -> None:
    assert left.shape == right.shape
    assert left.dtype.newbyteorder("=") == right.dtype.newbyteorder("=")
    assert left.astype(left.dtype.newbyteorder("<")).tobytes() == right.astype(right.dtype.newbyteorder("<")).tobytes()


NAMES = st.text().filter(lambda name: name != "__metadata__")


@given(
    arrays=st.lists(st.tuples(ARRAYS, LAYOUTS), max_size=5),
    names=st.lists(NAMES, min_size=5, max_size=5, unique=True),
)
def test_weights_come_back_as_they_were(arrays, names) -> None:
    given_list = [laid_out(array, layout) for array, layout in arrays]
    data = encode(Weights(given_list)).to_bytes()
    assert encode(Weights(given_list)).total == len(data)
    found = decode(data).weights
    assert isinstance(found, list)
    assert len(found) == len(given_list)
    for left, right in zip(given_list, found, strict=True):
        same(left, right)
        assert not right.flags.writeable
        assert right.flags.aligned
    named = dict(zip(names, given_list, strict=False))
    data = encode(Weights(named)).to_bytes()
    back = decode(data).weights
    assert isinstance(back, dict)
    assert list(back) == list(named)
    for name, array in named.items():
        same(array, back[name])
    theirs = safetensors.numpy.load(data)
    assert set(theirs) == set(named)
    for name, array in named.items():
        same(array, theirs[name])


@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_what_the_safetensors_package_writes_is_read(arrays) -> None:
    arrays = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    found = decode(safetensors.numpy.save(arrays)).weights
    assert isinstance(found, dict)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        same(array, found[name])


def test_more_than_ten_tensors_of_a_list_keep_their_order() -> None:
    found = decode(encode(Weights([np.full(3, i, "f4") for i in range(25)])).to_bytes()).weights
    assert [int(array[0]) for array in found] == list(range(25))


def test_decoding_copies_nothing_and_encoding_only_what_is_out_of_order() -> None:
    array = np.arange(1000, dtype=np.float32)
    encoded = encode(Weights({"a": array, "b": array[::2], "c": array.astype(">f4")}))
    pieces = [np.frombuffer(piece, np.uint8) for piece in encoded.pieces]
    assert [np.shares_memory(piece, array) for piece in pieces] == [False, True, False, False]
    buffer = bytearray(encoded.to_bytes())
    for view in decode(buffer).weights.values():
        assert np.shares_memory(view, np.frombuffer(buffer, np.uint8))


def test_the_same_weights_are_the_same_bytes() -> None:
    weights = {"b": np.zeros(3, bool), "a": np.ones((2, 2)), "c": np.float16(1)}
    assert encode(Weights(weights)).digest() == encode(Weights({k: np.copy(v) for k, v in weights.items()})).digest()


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ({"x": np.array([object()])}, "'x' has the type object; what can travel is bool"),
        ({"x": np.array(["a"])}, "'x' has the type <U1"),
        ({"x": np.zeros(2, np.complex128)}, "'x' has the type complex128"),
        ({"x": np.zeros(2, np.longdouble)}, "'x' has the type float128"),
        ({"x": np.zeros(2, "M8[s]")}, "'x' has the type datetime64"),
        ({"x": np.zeros(2, [("a", "f4")])}, "'x' has the type"),
        ([np.zeros(2), None], "'1' has the type object"),
        ({1: np.zeros(2)}, "cannot have the name 1"),
        ({"__metadata__": np.zeros(2)}, "cannot have the name '__metadata__'"),
        ({"\ud800": np.zeros(2)}, "no Unicode text"),
    ],
)
def test_what_cannot_travel_is_refused_by_name(weights, error: str) -> None:
    with pytest.raises(WireError, match=error):
        encode(Weights(weights))


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


EIGHT = bytes(8)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "0 bytes are no weights"),
        (b"1234567", "7 bytes are no weights"),
        (raw({}, length=10**6), "claims 1000000 bytes"),
        (raw({}, length=2**63), "claims"),
        (raw(b" " * (MAX_HEADER_BYTES + 1)), "claims"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00]\x94.", "pickled"),
        (raw(b"{"), "not JSON"),
        (raw(b"\xff\xff"), "not JSON"),
        (raw(b"[" * 100_000), "not JSON"),
        (raw(b'{"a":' + b"9" * 5000 + b"}"), "not JSON"),
        (raw([]), "must be a JSON object"),
        (raw(b'{"a":1,"a":2}'), "stands there twice"),
        (raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)), "stands there twice"),
        (raw({"__metadata__": {"a": 1}}), "metadata must be texts"),
        (raw({"__metadata__": []}), "metadata must be texts"),
        (raw({"x": 1}), "'x' must have dtype, shape and data_offsets"),
        (raw({"x": tensor(more=1)}, EIGHT), "and nothing else"),
        (raw({"x": tensor(dtype="O")}, EIGHT), "'x' has the type 'O'; understood are BOOL"),
        (raw({"x": tensor(dtype=["F32"])}, EIGHT), "understood are"),
        (raw({"x": tensor(dtype="F8_E4M3")}, EIGHT), "understood are"),
        (raw({"x": tensor(shape=(-2,))}, EIGHT), "no usable shape"),
        (raw({"x": tensor(shape=(2.0,))}, EIGHT), "no usable shape"),
        (raw({"x": tensor(shape=(True, 2))}, EIGHT), "no usable shape"),
        (raw({"x": {**tensor(), "shape": 2}}, EIGHT), "no usable shape"),
        (raw({"x": tensor(shape=[1] * 33)}, EIGHT), "no usable shape"),
        (raw({"x": tensor(shape=(2**62, 2**62))}, EIGHT), "impossible shape"),
        (raw({"x": tensor(shape=(0, 2**40, 2**40), offsets=(0, 0))}), "impossible shape"),
        (raw({"x": tensor(shape=(2**70,))}, EIGHT), "no usable shape"),
        (raw({"x": tensor(shape=(3,))}, EIGHT), "8 bytes, its shape and type need another number"),
        (raw({"x": tensor(offsets=(0, 8, 9))}, EIGHT), "two data_offsets"),
        (raw({"x": tensor(offsets=(8, 0))}, EIGHT), "need another number"),
        (raw({"x": tensor(offsets=(-8, 0))}, EIGHT), "two data_offsets, none negative"),
        (raw({"x": tensor(offsets=(8, 16))}, EIGHT), "leaves a hole"),
        (raw({"x": tensor(), "y": tensor()}, EIGHT), "overlaps the one before"),
        (raw({"x": tensor(), "y": tensor(offsets=(4, 12))}, bytes(12)), "overlaps the one before"),
        (raw({"x": tensor(), "y": tensor(offsets=(12, 20))}, bytes(20)), "leaves a hole"),
        (raw({"x": tensor()}, bytes(9)), "end at byte .* of"),
        (raw({"x": tensor()}, bytes(7)), "end at byte .* of"),
        (raw({"x": tensor(shape=(2**40,), offsets=(0, 2**42))}, EIGHT), "end at byte .* of"),
        (raw({"x": tensor(dtype="BOOL", shape=(8,))}, b"\0\1\2\0\0\0\0\0"), "other bytes than 0 and 1"),
        (raw({"__metadata__": {"collective.weights": "list"}, "x": tensor()}, EIGHT), "names 'x', not 0, 1"),
        (raw({"__metadata__": {"collective.weights": "list"}, "1": tensor()}, EIGHT), "names '1', not 0, 1"),
    ],
)
def test_hostile_bytes_are_refused(data: bytes, error: str) -> None:
    with pytest.raises(WireError, match=error):
        decode(data)


def test_tensors_in_odd_places_are_read_and_aligned() -> None:
    header = {"x": tensor("U8", (1,), (0, 1)), "y": tensor("F64", (1,), (1, 9))}
    found = decode(raw(header, b"\7" + np.float64(2.5).tobytes())).weights
    assert found["y"][0] == 2.5
    assert found["y"].flags.aligned
    assert not found["y"].flags.writeable


def test_bfloat16_is_never_read_as_something_else() -> None:
    data = raw({"x": tensor("BF16", (4,))}, EIGHT)
    program = textwrap.dedent(f"""
        import importlib.util, sys
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "ml_dtypes" else found(name, *more)
        from collective_learner.wire.codec import decode
        decode({data!r})
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "WireError: the tensor 'x' is of bfloat16, which numpy only has with the package ml_dtypes" in done.stderr


@given(data=st.binary(max_size=200))
def test_any_bytes_are_weights_or_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


@given(
    st.lists(ARRAYS, max_size=3), st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])
)
def test_damaged_weights_are_other_weights_or_a_wire_error(arrays, at: int, byte: int, how: str) -> None:
    data = bytearray(encode(Weights(arrays)).to_bytes())
    at %= len(data)
    if how == "set":
        data[at] = byte
    elif how == "cut":
        del data[at:]
    else:
        data.insert(at, byte)
    try:
        found = decode(data).weights
    except WireError:
        return
    assert how != "cut"
    assert sum(array.nbytes for array in (found.values() if isinstance(found, dict) else found)) <= len(data)


def test_what_grows_stands_in_the_header_and_is_checked() -> None:
    weights = {"nodes": np.zeros((3, 2), np.float32), "base": np.zeros(2)}
    data = encode(Weights(weights, growing={"nodes": 40})).to_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert json.loads(metadata["collective.growing"]) == {"nodes": 40}
    assert b"collective.growing" not in encode(Weights(weights)).to_bytes()
    for growing in ({"nodes": 2}, {"missing": 3}):
        with pytest.raises(WireError, match=f"{next(iter(growing))!r} is to grow to"):
            encode(Weights(weights, growing=growing))
