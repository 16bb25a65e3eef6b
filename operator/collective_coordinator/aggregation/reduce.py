"""Folding one piece of every learner's update into one piece of the result, element by element.

The rule for types, the same for every aggregation:

* float32 and float64 are folded in their own precision; float16 and bfloat16 in float32, rounded to nearest even.
* integers (step counters, ``num_batches_tracked``) are folded in float64 and rounded to the nearest, ties to even: a
  sum of counters would run away, and truncation would let them creep backwards.
* booleans follow the majority of the weights; a tie is False.

Sources: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017
(mean weighted by examples); Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
ICML 2018 (coordinate-wise median and trimmed mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
"""One learner's piece: shape (elements,)."""

_STORED = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "F16": "<f2", "BF16": "<u2", "U16": "<u2", "I16": "<i2",
    "F32": "<f4", "U32": "<u4", "I32": "<i4", "F64": "<f8", "U64": "<u8", "I64": "<i8",
}  # fmt: skip

FLOATING = ("F16", "BF16", "F32", "F64")
"""The types that can be moved part of a way; counters and truth values are taken as they come."""


class NotFiniteError(ValueError):
    """A learner's piece holds NaN or infinity."""


class Aggregation(Protocol):
    """Folds the learners' columns, all of one floating type, into one.

    Called with ``columns`` of shape (elements,) each, and ``weights`` of shape (learners,), positive, summing to one.
    Must not change the columns, and returns a new array of their type.
    """

    def __call__(self, columns: Sequence[Column], weights: NDArray[np.float64]) -> Column:
        """Return the aggregate, shape (elements,)."""


def mean(columns: Sequence[Column], weights: NDArray[np.float64]) -> Column:
    """Average, weighted: FedAvg's, with the numbers of examples as weights."""
    kind = columns[0].dtype.type
    total: Column = np.multiply(columns[0], kind(weights[0]))
    scratch = np.empty_like(total)
    for column, weight in zip(columns[1:], weights[1:], strict=True):
        np.multiply(column, kind(weight), out=scratch)
        np.add(total, scratch, out=total)
    return total


def median(columns: Sequence[Column], weights: NDArray[np.float64]) -> Column:
    """Take the middle value of each coordinate; every learner counts the same, whatever its weight."""
    del weights
    low, high = (len(columns) - 1) // 2, len(columns) // 2
    ordered = np.partition(np.stack(columns), (low, high), axis=0)
    return np.asarray(ordered[low] / 2 + ordered[high] / 2, dtype=columns[0].dtype)


def trimmed_mean(share: float) -> Aggregation:
    """Drop the ``share`` largest and the ``share`` smallest values of each coordinate, and average the rest.

    Parameters
    ----------
    share
        0 to below 0.5, of the number of learners; at least one value a side is dropped when it is above 0 and three or
        more learners take part, since a robust mean of few learners that drops nothing is not robust.
    """

    def fold(columns: Sequence[Column], weights: NDArray[np.float64]) -> Column:
        del weights
        learners = len(columns)
        drop = min(max(int(share * learners), 1 if share > 0 else 0), (learners - 1) // 2)
        ordered = np.sort(np.stack(columns), axis=0)
        return np.asarray(ordered[drop : learners - drop].mean(axis=0), dtype=columns[0].dtype)

    return fold


def decode(piece: bytes | memoryview, dtype: str) -> Column:
    """View a piece as an array that arithmetic can use: shape (elements,), a floating type."""
    stored = np.frombuffer(piece, dtype=_STORED[dtype])
    if dtype == "BF16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F16":
        return stored.astype(np.float32)
    return stored if dtype in ("F32", "F64") else stored.astype(np.float64)


def encode(column: Column, dtype: str) -> bytes:
    """Write an array of `decode`'s back in the stream's type, rounding as the module says."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(column, dtype=np.float32).view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
        return (rounded >> np.uint32(16)).astype("<u2").tobytes()
    stored = np.dtype(_STORED[dtype])
    if stored.kind == "b":
        return (column > 0.5).tobytes()
    if stored.kind in "iu":
        info = np.iinfo(stored)
        # The largest 64-bit integers are no float64; the next float64 below them is one that casts back.
        highest = np.nextafter(float(info.max), 0) if stored.itemsize == 8 else float(info.max)
        return np.clip(np.rint(column), float(info.min), highest).astype(stored).tobytes()
    return column.astype(stored, copy=False).tobytes()


def fold(
    aggregation: Aggregation, pieces: Sequence[bytes | memoryview], dtype: str, weights: NDArray[np.float64]
) -> bytes:
    """Fold the same piece of every learner's update into the result's.

    Parameters
    ----------
    aggregation
        `mean`, `median`, or what `trimmed_mean` returns.
    pieces
        One a learner, all of the same length.
    dtype
        safetensors' name of their type.
    weights
        Shape (learners,), positive; they are normalised here.

    Raises
    ------
    NotFiniteError
        Its ``args`` hold the index of the learner that sent NaN or infinity.
    """
    columns = [decode(piece, dtype) for piece in pieces]
    with np.errstate(over="ignore", invalid="ignore"):
        result = aggregation(columns, weights / weights.sum())
    # A mean shows what is wrong in any of its columns, and costs one look instead of one a learner. A median hides it.
    if aggregation is not mean or not _is_finite(result):
        for index, column in enumerate(columns):
            if not _is_finite(column):
                raise NotFiniteError(index)
    return encode(result, dtype)


def _is_finite(column: Column) -> bool:
    """Look for NaN and infinity: by one pass that writes nothing, and closely where huge numbers overflow it."""
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(np.dot(column, column))
    return not suspicious or bool(np.isfinite(column).all())
