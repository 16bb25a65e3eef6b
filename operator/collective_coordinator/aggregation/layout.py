"""Where the tensors lie in a stream of safetensors bytes, read from its header alone.

Updates of several learners are folded piece by piece while they arrive, so the positions of their tensors must be known
before the data come, and must be the same for all: a learner whose model differs by one shape would otherwise be
averaged into nonsense. Format: an unsigned 64-bit little-endian header length, a JSON header, then the data
(github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from typing import Any

from collective_learner.wire.header import GROWING, METADATA

MAX_HEADER_BYTES = 16 << 20
"""Room for some hundred thousand tensors; more is no model."""

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F16": 2, "BF16": 2, "U16": 2, "I16": 2,
    "F32": 4, "U32": 4, "I32": 4, "F64": 8, "U64": 8, "I64": 8,
}  # fmt: skip
"""Bytes of one element, by safetensors' name of the type; other types are refused."""


class LayoutError(ValueError):
    """The header is not what safetensors says, or two learners' tensors differ; names the tensor."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a stream; ``begin`` and ``end`` are bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring tensors of one type: to element-wise arithmetic they are one array."""

    dtype: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The header of a stream and what it says.

    Parameters
    ----------
    header
        The header's own bytes, its length in front, as the learner wrote them.
    tensors
        In the order of their data.
    body_bytes
        Size of the data that follow the header.
    growing
        Tensors whose number of rows differs between learners and rounds, and the most that each may have.
    """

    header: bytes
    tensors: tuple[Tensor, ...]
    body_bytes: int
    growing: Mapping[str, int] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """Size of header and data together."""
        return len(self.header) + self.body_bytes

    @property
    def most_bytes(self) -> int:
        """Size of header and data together when all that grows has grown."""
        more = 0
        for tensor in self.tensors:
            if tensor.name in self.growing:
                row = prod(tensor.shape[1:]) * ITEM_BYTES[tensor.dtype]
                more += self.growing[tensor.name] * row - (tensor.end - tensor.begin)
        return self.total_bytes + more

    def runs(self) -> Iterator[Run]:
        """Merge neighbouring tensors of one type."""
        filled = (tensor for tensor in self.tensors if tensor.end > tensor.begin)
        for dtype, tensors in groupby(filled, lambda tensor: tensor.dtype):
            members = list(tensors)
            yield Run(dtype, members[0].begin, members[-1].end)

    def difference(self, other: Layout) -> str | None:
        """Say how another learner's tensors differ from these, naming the first that does; None when they agree."""
        mine, theirs = ({tensor.name: tensor for tensor in layout.tensors} for layout in (self, other))
        for name, tensor in mine.items():
            if name not in theirs:
                return f"tensor {name!r} is missing"
            its = theirs[name]
            if its.shape != tensor.shape:
                return f"tensor {name!r} has the shape {list(its.shape)}, the others have {list(tensor.shape)}"
            if its.dtype != tensor.dtype:
                return f"tensor {name!r} has the type {its.dtype}, the others have {tensor.dtype}"
        extra = next((name for name in theirs if name not in mine), None)
        if extra is not None:
            return f"tensor {extra!r} is known to no other learner"
        # Positions last: one other shape moves every tensor behind it.
        moved = next((tensor for name, tensor in mine.items() if theirs[name].begin != tensor.begin), None)
        if moved is None:
            return None
        at = theirs[moved.name].begin
        return f"tensor {moved.name!r} lies at byte {at} of the data, at byte {moved.begin} with the others"


def header_bytes(prefix: bytes) -> int:
    """Tell from the first 8 bytes how many bytes the header has, its length included.

    Raises
    ------
    LayoutError
        The announced length is above `MAX_HEADER_BYTES`.
    """
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise LayoutError(f"these are no safetensors: a header of {length} bytes is announced")
    return 8 + length


def parse_layout(header: bytes) -> Layout:
    """Read a whole header (its 8 length bytes in front).

    Raises
    ------
    LayoutError
        It is no JSON object of tensors, a type is not supported, or tensors overlap or leave gaps.
    """
    try:
        entries: Any = json.loads(header[8:])
        if not isinstance(entries, dict):
            raise LayoutError("the header of the weights is no JSON object")
        tensors = [_tensor(name, entry) for name, entry in entries.items() if name != METADATA]
        growing = _growing(entries.get(METADATA), tensors)
    except (ValueError, RecursionError) as error:
        if isinstance(error, LayoutError):
            raise
        raise LayoutError(f"the header of the weights is no JSON: {error}") from error
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    end = 0
    for tensor in tensors:
        if tensor.begin != end:
            raise LayoutError(f"tensor {tensor.name!r} starts at byte {tensor.begin}, the one before ended at {end}")
        end = tensor.end
    return Layout(header=bytes(header), tensors=tuple(tensors), body_bytes=end, growing=growing)


def _growing(metadata: Any, tensors: list[Tensor]) -> dict[str, int]:
    told = metadata.get(GROWING) if isinstance(metadata, dict) else None
    if told is None:
        return {}
    rows = {tensor.name: tensor.shape[0] for tensor in tensors if tensor.shape}
    found = json.loads(told) if isinstance(told, str) else None
    if not isinstance(found, dict) or not all(
        type(most) is int and name in rows and most >= rows[name] for name, most in found.items()
    ):
        raise LayoutError(f"the header says of tensors that grow what is not so: {str(told)[:80]}")
    return found


def _tensor(name: str, entry: Any) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise LayoutError(f"tensor {name!r} lacks its dtype, shape or data_offsets")
    if dtype not in ITEM_BYTES:
        known = ", ".join(ITEM_BYTES)
        raise LayoutError(f"tensor {name!r} has the type {dtype}, which cannot be averaged; known: {known}")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise LayoutError(f"tensor {name!r} has an impossible shape {shape}")
    if end - begin != prod(shape) * ITEM_BYTES[dtype] or begin < 0:
        raise LayoutError(f"tensor {name!r} of shape {shape} and type {dtype} cannot lie in {begin}..{end}")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), begin=begin, end=end)
