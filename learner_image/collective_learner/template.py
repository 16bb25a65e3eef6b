"""What weights must look like to fit a learner: the names, shapes and types of its own.

Tensors that grow may have any number of rows up to the most that the learner allows.

Checked before a learner sees them, so that no framework's half-done assignment or silent broadcast decides, and known
before they arrive, so that the limit on what is received is the size of the model and not of the machine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from collective_learner.mli import Weights
from collective_learner.wire.codec import encode
from collective_learner.wire.parts import WireError

if TYPE_CHECKING:
    from collective_learner.mli import Array

_SLACK_BYTES = 64 << 10
"""Another writer's header may be longer than ours: padding, metadata, spaces."""

_FAST = (np.dtype(np.float32), np.dtype(np.float64))
_STEP = 1 << 18


class NotFiniteError(WireError):
    """Weights hold NaN or infinity where the learner's own held numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    finite: bool
    most_rows: int | None

    @property
    def room(self) -> int:
        """Bytes that fitting arrays may have beyond the learner's own at first."""
        if self.most_rows is None:
            return 0
        return (self.most_rows - self.shape[0]) * math.prod(self.shape[1:]) * self.dtype.itemsize

    def takes(self, shape: tuple[int, ...]) -> bool:
        if self.most_rows is None:
            return shape == self.shape
        return len(shape) == len(self.shape) and shape[0] <= self.most_rows and shape[1:] == self.shape[1:]

    def __str__(self) -> str:
        if self.most_rows is None:
            return str(self.shape)
        return f"({', '.join([f'at most {self.most_rows}', *map(str, self.shape[1:])])})"


class Template:
    """The form of a learner's weights.

    Parameters
    ----------
    weights
        The learner's own.
    """

    def __init__(self, weights: Weights) -> None:
        encoded = encode(weights)
        self._growing = dict(weights.growing)
        self._is_list = not isinstance(weights.weights, Mapping)
        self._slots = {
            name: _Slot(
                shape=array.shape,
                dtype=array.dtype.newbyteorder("="),
                finite=_is_finite(array),
                most_rows=self._growing.get(name),
            )
            for name, array in _named(weights).items()
        }
        self.most_bytes = encoded.total + sum(slot.room for slot in self._slots.values())
        """The size on the wire of the learner's own weights, as large as they may become."""
        self.limit = self.most_bytes + encoded.pieces[0].nbytes + _SLACK_BYTES
        """The most bytes that fitting weights can have."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the tensors, in order; None for weights that are a list."""
        return None if self._is_list else tuple(self._slots)

    def fit(self, weights: Weights) -> Weights:
        """Check weights, and give them as the learner has its own: a list, or a dict in the same order.

        A tensor must be finite where the learner's own was when it was set up: a mask of infinities may stay one.

        Raises
        ------
        WireError
            A tensor is missing, unknown, of another shape or type, or not finite (`NotFiniteError`); the message names
            it.
        """
        given = _named(weights)
        missing = [name for name in self._slots if name not in given]
        unknown = [name for name in given if name not in self._slots]
        if missing or unknown:
            found = [f"lack {_shorten(missing)}"] if missing else []
            found += [f"hold the unknown {_shorten(unknown)}"] if unknown else []
            raise WireError(f"the weights {' and '.join(found)}; the model has {_shorten([*self._slots])}")
        for name, slot in self._slots.items():
            array = given[name]
            if not slot.takes(array.shape):
                raise WireError(f"the tensor {name!r} has the shape {array.shape}, the model's has {slot}")
            if array.dtype.newbyteorder("=") != slot.dtype:
                raise WireError(f"the tensor {name!r} has the type {array.dtype}, the model's has {slot.dtype}")
            if slot.finite and not _is_finite(array):
                raise NotFiniteError(f"the tensor {name!r} holds numbers that are not finite")
        ordered = {name: given[name] for name in self._slots}
        return Weights(
            weights=[*ordered.values()] if self._is_list else ordered,
            training_summary=weights.training_summary,
            growing=self._growing,
        )


def owned(weights: Weights) -> Weights:
    """Copy weights, whatever they are, so that whoever gets them may keep and change them."""
    return replace(weights, weights=copy.deepcopy(weights.weights))


def _named(weights: Weights) -> dict[str, Array]:
    given = weights.weights
    items = given.items() if isinstance(given, Mapping) else ((str(index), array) for index, array in enumerate(given))
    return {name: np.asarray(array) for name, array in items}


def _is_finite(array: Array) -> bool:
    """Tell without a temporary array of truth values: NaN and infinity show themselves in sums and extremes."""
    if array.dtype.kind == "c":
        return _is_finite(array.real) and _is_finite(array.imag)
    if array.size == 0 or (array.dtype.kind != "f" and array.dtype.name != "bfloat16"):
        return True
    if array.dtype in _FAST and array.flags.c_contiguous and _has_finite_squares(array.reshape(-1)):
        return True  # one pass over memory; large numbers, whose squares are infinite, need the two below
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def _has_finite_squares(flat: Array) -> bool:
    pieces = (flat[at : at + _STEP] for at in range(0, flat.size, _STEP))
    with np.errstate(over="ignore"):
        return all(np.isfinite(np.dot(piece, piece)) for piece in pieces)


def _shorten(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:8]))
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "no tensor"
