"""What every learner does alike: check weights that arrive, compare scores, fingerprint weights.

Weights come from another machine. They are matched against the learner's own tensors, by name, before anything is
written, so that a refused model leaves no half-loaded one behind.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from collective_learner.mli import ProposedWeights, Weights, WeightsRefusedError

if TYPE_CHECKING:
    from collective_learner.mli import Array

MODEL_FILE = "model.safetensors"
"""The name that a learner suggests for its model's file."""


def match_weights(
    weights: Weights, own: Mapping[str, Array], *, growing: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Bring weights that arrived into the shape of a learner's own: the same names, shapes and types.

    Parameters
    ----------
    weights
        A dict by name, in any order, or a list in the order of `own`.
    own
        The learner's tensors by name; their values do not matter.
    growing
        The most rows of those whose number of rows does not matter either.

    Returns
    -------
    dict
        The arrays that arrived, not copied, in the order of `own`.

    Raises
    ------
    WeightsRefusedError
        A tensor is missing, unknown, or of another shape or type; the message names it.
    """
    growing = growing or {}
    given = weights.weights
    if not isinstance(given, Mapping):
        if len(given) != len(own):
            raise WeightsRefusedError(
                f"weights: {len(given)} tensors given, the model has {len(own)} ({', '.join(own)})"
            )
        given = dict(zip(own, given, strict=True))
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    if missing or unknown:
        found = [f"missing {', '.join(map(repr, missing))}"] if missing else []
        found += [f"unknown {', '.join(map(repr, unknown))}"] if unknown else []
        raise WeightsRefusedError(f"weights: {'; '.join(found)}; the model has {', '.join(own)}")
    matched = {}
    for name, mine in own.items():
        array = np.asarray(given[name])
        if name not in growing and array.shape != mine.shape:
            raise WeightsRefusedError(f"weights: {name!r} has shape {array.shape}, the model's has {mine.shape}")
        if name in growing and (array.shape[1:] != mine.shape[1:] or array.ndim == 0 or len(array) > growing[name]):
            raise WeightsRefusedError(
                f"weights: {name!r} has shape {array.shape}, the model's has at most {growing[name]} rows of "
                f"{mine.shape[1:]}"
            )
        if array.dtype != mine.dtype:
            raise WeightsRefusedError(f"weights: {name!r} has type {array.dtype}, the model's has {mine.dtype}")
        matched[name] = array
    return matched


def has_nan(weights: Mapping[str, Array]) -> bool:
    """Whether any number among the weights is not a number."""
    return any(bool(np.isnan(array.min())) for array in weights.values() if array.dtype.kind in "fc" and array.size)


def is_finite(array: Array) -> bool:
    """Whether all numbers of an array are finite, told by its extremes, without a temporary array of truth values."""
    if array.dtype.kind != "f" or not array.size:
        return True
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def is_better(score: float, than: float, *, minimise: bool) -> bool:
    """Whether a score wins a vote: strictly better. NaN never wins, and everything else wins against NaN."""
    if math.isnan(score):
        return False
    if math.isnan(than):
        return True
    return score < than if minimise else score > than


def fingerprint(weights: Mapping[str, Array] | Iterable[tuple[str, Array]]) -> bytes:
    """SHA-256 over the names, types, shapes and values of weights, which may be given one by one."""
    digest = hashlib.sha256()
    for name, array in weights.items() if isinstance(weights, Mapping) else weights:
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.asarray(array, order="C").data)
    return digest.digest()


def derive_seed(*parts: bytes | int) -> int:
    """Mix seeds and fingerprints into one seed of 63 bits, the same in every process."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode())
        digest.update(b"\0")
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def verdict(
    weights: Weights, *, vote_score: float, test_score: float, own_score: float, minimise: bool
) -> ProposedWeights:
    """Put scores into a learner's answer to a proposal."""
    vote = is_better(vote_score, own_score, minimise=minimise)
    return ProposedWeights(weights=weights, vote_score=vote_score, test_score=test_score, vote=vote)
