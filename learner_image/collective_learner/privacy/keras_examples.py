"""The examples of a private training with Keras, each of which is drawn by itself.

What gives batches (a `tf.data.Dataset`, most PyDatasets) has decided by itself what belongs together, and nobody can
say with which probability; so arrays are needed, or what can give all of its examples as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from collective_learner.learners.checks import whole_number
from collective_learner.learners.keras_data import as_arguments, batch_size_of
from collective_learner.privacy.spending import identity_of

_OPTIONS = ("batch_size", "epochs", "steps_per_epoch", "shuffle", "verbose")
"""Arguments of `fit` that mean something here, or do no harm."""


@dataclass(frozen=True, kw_only=True)
class DrawnExamples:
    """Examples, and what a training draws of them.

    Parameters
    ----------
    parts
        Arrays, or nests of them, by the names that `fit` gives them: ``x``, ``y``, perhaps ``sample_weight``.
    count
        How many examples there are.
    expected
        Examples in a batch, on average.
    steps
        Batches in a training.
    """

    parts: Mapping[str, Any]
    count: int
    expected: int
    steps: int

    def at(self, places: Any) -> dict[str, Any]:
        """Give the examples at these places, floating-point numbers in Keras' own type, as `fit` would."""

        def taken(array: Any) -> Any:
            rows = np.asarray(array[places])
            return rows.astype(keras.config.floatx(), copy=False) if rows.dtype.kind == "f" else rows

        found: dict[str, Any] = keras.tree.map_structure(taken, dict(self.parts))
        return found

    def identity(self) -> str:
        """Give what the examples are known again by."""

        def parts_at(place: int) -> Iterator[tuple[str, bytes]]:
            for array in keras.tree.flatten(self.parts):
                example = np.asarray(array[place])
                yield f"{example.dtype}{example.shape}", example.tobytes()

        return identity_of(self.count, parts_at)


def drawn_examples(loader: Any, options: Mapping[str, Any]) -> DrawnExamples:
    """Find the examples of a training, and how many are drawn how often.

    Parameters
    ----------
    loader
        What a learner trains on: a pair (x, y) or a triple (x, y, sample_weight) of arrays or nests of them; or a
        PyDataset with a `batch_size` whose `arrays` are such a pair or triple.
    options
        Of `fit`.

    Raises
    ------
    ValueError
        It is something else, or an option that a private training cannot obey.
    """
    for name in options:
        if name not in _OPTIONS:
            raise ValueError(
                f"model_fit_kwargs: {name!r}, which diff_priv_config does not allow; allowed are {', '.join(_OPTIONS)}"
            )
    given = loader if isinstance(loader, tuple | list) else getattr(loader, "arrays", None)
    if not isinstance(given, tuple | list):
        raise ValueError(
            f"train_loader: {type(loader).__name__} gives batches; with diff_priv_config each example is drawn by "
            "itself, so arrays (x, y) are needed, or a PyDataset that has them as its `arrays`"
        )
    parts = keras.tree.map_structure(_array, as_arguments("train_loader", given, options))
    weights = parts.get("sample_weight")
    if weights is not None and keras.tree.is_nested(parts["y"]) and not keras.tree.is_nested(weights):
        parts["sample_weight"] = keras.tree.map_structure(lambda _: weights, parts["y"])  # as `fit` does
    count = len(keras.tree.flatten(parts)[0])
    size = whole_number("batch_size", batch_size_of(loader, options), at_least=1)
    batches = options.get("steps_per_epoch")
    if batches is None:
        batches = math.ceil(count / size) if isinstance(loader, tuple | list) else len(loader)
    epochs = whole_number("epochs", options.get("epochs", 1), at_least=1)
    return DrawnExamples(
        parts=parts,
        count=count,
        expected=min(size, count),
        steps=epochs * whole_number("steps_per_epoch", batches, at_least=1),
    )


def split(places: Any, size: int) -> Iterable[Any]:
    """Cut a batch into pieces of at most some size, nearly equal; an empty one has none."""
    return np.array_split(places, math.ceil(len(places) / size)) if len(places) else ()


def _array(given: Any) -> Any:
    array = given if isinstance(given, np.ndarray) else np.asarray(given)
    if array.dtype.kind not in "biufUS" or not array.ndim:
        raise ValueError(f"train_loader: {array.dtype} of shape {array.shape}; arrays of numbers or strings are needed")
    return array
