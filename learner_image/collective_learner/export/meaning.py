"""What a model's outputs mean, and how they are told: as a class with its probability, or as a value.

A network gives logits when its loss takes logits, and an exported file no longer knows its loss. So the meaning is
found out while the loss is there, and written into the file.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collective_learner.mli import Array


class Meaning(enum.StrEnum):
    """How a row of outputs is read."""

    LOGITS = "logits"
    """One number a class; softmax makes probabilities of them."""
    LOG_PROBABILITIES = "log-probabilities"
    PROBABILITIES = "probabilities"
    LOGIT = "logit"
    """One number, of the second of two classes; the logistic function makes a probability of it."""
    PROBABILITY = "probability"
    """One number: that of the second of two classes."""
    SCORES = "scores"
    """One number a class, the highest wins; nothing makes probabilities of them."""
    VALUES = "values"
    """Whatever they are: a regression's values, for example."""


_ONE_NUMBER = (Meaning.LOGIT, Meaning.PROBABILITY)


def tell(outputs: Array, meaning: Meaning, classes: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Read outputs row by row.

    Parameters
    ----------
    outputs
        Of shape (rows, ...).
    meaning
        What they are; those that do not have its shape are told as values.
    classes
        The classes' names in the order of the outputs; their numbers by default.

    Returns
    -------
    list[dict]
        ``class`` and ``probability`` (or ``score``), or ``value``: a number, or lists of them.
    """
    rows = np.asarray(outputs, dtype=np.float64)
    if meaning in _ONE_NUMBER and rows.size == len(rows):
        one = _probability(rows.reshape(-1)) if meaning is Meaning.LOGIT else rows.reshape(-1)
        rows, meaning = np.stack([1 - one, one], axis=1), Meaning.PROBABILITIES
    if meaning is Meaning.VALUES or meaning in _ONE_NUMBER or rows.ndim != 2 or rows.shape[1] < 2:
        single = rows.size == len(rows)
        return [{"value": float(row.reshape(())) if single else row.tolist()} for row in rows]
    if meaning is Meaning.LOGITS:
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
    elif meaning is Meaning.LOG_PROBABILITIES:
        rows = np.exp(rows)
    told = "score" if meaning is Meaning.SCORES else "probability"
    best = rows.argmax(axis=1)
    names = range(rows.shape[1]) if classes is None else classes
    return [{"class": names[index], told: float(row[index])} for index, row in zip(best, rows, strict=True)]


def _probability(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    positive = 1 / (1 + np.exp(-np.abs(logit)))
    return np.where(logit >= 0, positive, 1 - positive)
