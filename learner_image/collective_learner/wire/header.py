"""The header of a safetensors file, read as what it is on a wire: bytes from a stranger.

The reader in the safetensors package is safe too, but it copies every tensor, forgets the order and cannot say which
tensor was wrong. Here nothing is allocated that the header merely claims: every size follows from bytes that are there.
Source: the format section of github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collective_learner.wire.parts import WireError

METADATA = "__metadata__"
GROWING = "collective.growing"
"""Among the metadata of weights that have tensors whose number of rows differs between learners and rounds: their names
and the most rows of each, as a JSON object. Nobody can average them."""
MAX_HEADER_BYTES = 16 << 20
"""More than a hundred thousand tensors need; safetensors' own limit is 100 MB."""

MAX_DIMENSIONS = 32

ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""The types that are understood here, and the bytes of one number."""

_MAX_ELEMENTS = 1 << 62
_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where one tensor lies.

    Parameters
    ----------
    dtype
        A key of `ITEM_BYTES`.
    shape
        Its lengths; empty for a single number.
    begin, end
        Its bytes, counted from the start of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def write_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialise a header; the tensors' places are counted from its own end, and it is padded to 8 bytes."""
    entries: dict[str, Any] = {METADATA: dict(metadata)}
    for name, tensor in tensors.items():
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [tensor.begin, tensor.end]}
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise WireError(f"the name of a tensor is no Unicode text: {error}") from error
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise WireError(f"the names of the tensors need {len(text)} bytes, at most {MAX_HEADER_BYTES} are allowed")
    return len(text).to_bytes(_LENGTH, "little") + text


def read_header(data: memoryview) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the header of serialised weights.

    Parameters
    ----------
    data
        The whole of the bytes.

    Returns
    -------
    tensors
        Where each tensor lies, in the header's order.
    metadata
        The header's own texts.

    Raises
    ------
    WireError
        Anything is not as the format demands, or a type is not understood here.
    """
    size = data.nbytes
    if size < _LENGTH:
        raise WireError(f"{size} bytes are no weights in the safetensors format")
    length = int.from_bytes(data[:_LENGTH], "little")
    start = _LENGTH + length
    if length > MAX_HEADER_BYTES or start > size:
        if data[0] == 0x80 and data[1] <= 5:
            raise WireError(
                "the weights are pickled; here they travel as safetensors, since a pickle can run anything "
                "(a server for orchestrators of the original colearn has --weights-format numpy-pickle)"
            )
        raise WireError(f"the weights' header claims {length} bytes of {size - _LENGTH}, {MAX_HEADER_BYTES} allowed")
    entries = _json(bytes(data[_LENGTH:start]))
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WireError("the weights' metadata must be texts by name")
    tensors = {name: _tensor(name, entry, start) for name, entry in entries.items()}
    at = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            kind = "overlaps the one before it" if tensor.begin < at else "leaves a hole before it"
            raise WireError(f"the tensor {name!r} {kind}: it begins at byte {tensor.begin - start}, not {at - start}")
        at = tensor.end
    if at != size:
        raise WireError(f"the tensors end at byte {at} of {size}")
    return tensors, metadata


def _json(text: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the weights' header is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise WireError("the weights' header must be a JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _tensor(name: str, entry: object, start: int) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise WireError(f"the tensor {name!r} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise WireError(f"the tensor {name!r} has the type {dtype!r}; understood are {', '.join(ITEM_BYTES)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise WireError(f"the tensor {name!r} has no usable shape: at most {MAX_DIMENSIONS} lengths, none negative")
    if math.prod(length for length in shape if length) > _MAX_ELEMENTS:
        raise WireError(f"the tensor {name!r} has an impossible shape")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise WireError(f"the tensor {name!r} must have two data_offsets, none negative")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise WireError(f"the tensor {name!r} has {end - begin} bytes, its shape and type need another number")
    return Tensor(dtype=dtype, shape=tuple(shape), begin=start + begin, end=start + end)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number <= _MAX_ELEMENTS for number in value)
