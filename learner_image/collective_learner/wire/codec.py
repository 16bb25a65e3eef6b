"""Weights to bytes and back: safetensors, never pickle, since unpickling bytes from a network runs whatever they say.

Neither way copies a tensor without need. Encoding gives a header and views of the arrays as they lie in memory, to be
cut into parts; decoding gives views of the buffer that the parts were received in. These views are read-only: the
buffer is known by its digest, and whoever wrote into it would make the digest a lie.

Big-endian and non-contiguous arrays are brought into order first (a copy of those alone). The order of a dict is kept:
it is the order of the header's names, while the numbers lie sorted by the size of their type, so that every view is
aligned. A list becomes names "0", "1", ..., and a list again. bfloat16 travels as it is when numpy has it from
``ml_dtypes``; where that package is absent it is refused by name, never read as something else.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.mli import Weights
from collective_learner.wire.digest import digest_of
from collective_learner.wire.header import GROWING, ITEM_BYTES, Tensor, read_header, write_header
from collective_learner.wire.parts import PART_BYTES, WireError, cut_into_parts

if TYPE_CHECKING:
    from collective_learner.mli import Array

_KIND = "collective.weights"

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
}
_DTYPES = {code: np.dtype(name).newbyteorder("<") for name, code in _NAMES.items() if code != "BF16"}


@dataclass(frozen=True, slots=True)
class EncodedWeights:
    """Weights as they go onto the wire: pieces of memory that together are one safetensors file.

    Parameters
    ----------
    pieces
        The header and the tensors' own memory, in order, none empty.
    total
        The size of the whole, in bytes.
    weights
        The same once more as arrays over the same memory, read-only as those that `decode` gives.
    """

    pieces: tuple[memoryview, ...]
    total: int
    weights: Weights

    def parts(self, *, summary: bytes | None = None, part_bytes: int = PART_BYTES) -> Iterator[bytes]:
        """Serialise WeightsParts one by one; the arrays must not change meanwhile."""
        return cut_into_parts(self.pieces, total=self.total, summary=summary, part_bytes=part_bytes)

    def digest(self) -> bytes:
        """Hash everything: the name of these weights."""
        return digest_of(self.pieces)

    def to_bytes(self) -> bytes:
        """Copy everything into one piece."""
        return b"".join(self.pieces)


def encode(weights: Weights) -> EncodedWeights:
    """Lay out weights for the wire without copying them.

    Parameters
    ----------
    weights
        Arrays as a list or a dict; anything that numpy can read as a numeric array.

    Raises
    ------
    WireError
        A tensor has a type that cannot travel, a dict has a name that is no text, or a tensor has grown too far.
    """
    named, kind = _named(weights.weights)
    arrays = {name: _orderly(name, array) for name, array in named.items()}
    tensors: dict[str, Tensor] = {}
    at = 0
    places: list[memoryview] = []
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):  # stable: alignment before order
        tensors[name] = Tensor(dtype=_NAMES[array.dtype.name], shape=array.shape, begin=at, end=at + array.nbytes)
        at += array.nbytes
        if array.nbytes:
            places.append(array.reshape(-1).view(np.uint8).data)
    about = {_KIND: kind, **({GROWING: _growing(weights.growing, arrays)} if weights.growing else {})}
    header = write_header({name: tensors[name] for name in arrays}, about)
    views = {name: _locked(array) for name, array in arrays.items()}
    return EncodedWeights(
        pieces=(memoryview(header), *places),
        total=len(header) + at,
        weights=Weights(weights=[*views.values()] if kind == "list" else views, growing=weights.growing),
    )


def decode(data: bytes | bytearray | memoryview) -> Weights:
    """Read weights from one contiguous piece of memory, as read-only views of it.

    Raises
    ------
    WireError
        The bytes are not safetensors, lie about themselves, or hold a type that numpy does not have here.
    """
    view = memoryview(data).cast("B").toreadonly()
    tensors, metadata = read_header(view)
    arrays = {name: _view(name, view, tensor) for name, tensor in tensors.items()}
    if metadata.get(_KIND) != "list":
        return Weights(weights=arrays)
    if sorted(arrays) != sorted(map(str, range(len(arrays)))):
        raise WireError(f"weights that are a list have the names {', '.join(map(repr, arrays))}, not 0, 1, ...")
    return Weights(weights=[arrays[str(index)] for index in range(len(arrays))])


def _locked(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _named(weights: Sequence[Array] | Mapping[str, Array]) -> tuple[dict[str, Any], str]:
    if not isinstance(weights, Mapping):
        return {str(index): array for index, array in enumerate(weights)}, "list"
    for name in weights:
        if not isinstance(name, str) or name == "__metadata__":
            raise WireError(f"a tensor cannot have the name {name!r}, a text other than '__metadata__' is needed")
    return dict(weights), "dict"


def _growing(most: Mapping[str, int], arrays: Mapping[str, Array]) -> str:
    for name, rows in most.items():
        if name not in arrays or not arrays[name].ndim or len(arrays[name]) > rows:
            shape = arrays[name].shape if name in arrays else "no shape"
            raise WireError(f"the tensor {name!r} is to grow to {rows} rows, and has {shape}")
    return json.dumps(dict(most), separators=(",", ":"))


def _orderly(name: str, given: object) -> Array:
    array = np.asarray(given)
    if array.dtype.name not in _NAMES:
        raise WireError(f"the tensor {name!r} has the type {array.dtype}; what can travel is {', '.join(_NAMES)}")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.asarray(array, order="C")  # not ascontiguousarray, which makes an array of one out of a single number


def _view(name: str, data: memoryview, tensor: Tensor) -> Array:
    count = (tensor.end - tensor.begin) // ITEM_BYTES[tensor.dtype]
    dtype = _dtype(name, tensor.dtype)
    flat: Array = np.frombuffer(data, dtype=dtype, count=count, offset=tensor.begin if count else 0)
    if tensor.dtype == "BOOL" and count and flat.view(np.uint8).max() > 1:
        raise WireError(f"the tensor {name!r} is of truth values and holds other bytes than 0 and 1")
    if not flat.flags.aligned:  # a peer that sorts otherwise
        flat = flat.copy()
        flat.flags.writeable = False
    return flat.reshape(tensor.shape)


def _dtype(name: str, code: str) -> np.dtype[Any]:
    known = _DTYPES.get(code)
    if known is not None:
        return known
    if importlib.util.find_spec("ml_dtypes") is None:
        raise WireError(f"the tensor {name!r} is of bfloat16, which numpy only has with the package ml_dtypes")
    dtype: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    return dtype
