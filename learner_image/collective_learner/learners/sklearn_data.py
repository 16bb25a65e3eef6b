"""The examples that a model of scikit-learn learns from, checked, and completed where a site has not seen every class.

What a model of scikit-learn can tell apart is what `fit` found among the labels, so sites that saw different classes
would have weights of different shapes. Where a model cannot be told its classes otherwise, each that is missing stands
among the examples with the weight 0: it is known, and nothing is learnt from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collective_learner.learners.common import is_finite

if TYPE_CHECKING:
    from collective_learner.mli import Array


class Examples(NamedTuple):
    """Inputs, one row an example, and their labels."""

    x: Array
    y: Array


def checked(name: str, data: Any, *, missing: bool = False) -> Examples:
    """Return one of a learner's sets of examples.

    Parameters
    ----------
    name
        What the caller calls it.
    data
        x of shape (examples, features), and y of shape (examples,): arrays, or what numpy makes arrays of.
    missing
        Whether numbers of x may be missing (``nan``), or infinite.

    Raises
    ------
    ValueError
        It has another form, is empty, or holds what is no number.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        given = f"{len(data)} things" if isinstance(data, tuple | list) else f"a {type(data).__name__}"
        raise ValueError(f"{name}: {given}; a pair (x, y) of arrays is needed")
    x, y = map(np.asarray, data)
    if x.dtype.kind not in "fiub":
        what = type(data[0]).__name__ if x.ndim == 0 else f"of type {x.dtype}"
        raise ValueError(f"{name}: x is {what}; an array of numbers is needed")
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(f"{name}: x of shape {x.shape} and y of shape {y.shape}; (n, features) and (n,) are needed")
    if len(y) == 0:
        raise ValueError(f"{name}: no examples; at least one is needed")
    for part, array in (("y", y),) if missing else (("x", x), ("y", y)):
        if not is_finite(array):
            raise ValueError(f"{name}: {part} holds numbers that are missing (nan) or infinite; finite ones are needed")
    return Examples(x, y)


def check_fit(model: Any, **named: Examples | None) -> None:
    """Check that sets of examples have the features and classes of a fitted model.

    Raises
    ------
    ValueError
        One has others; the message names it.
    """
    features, classes = int(model.n_features_in_), getattr(model, "classes_", None)
    for name, data in named.items():
        if data is None:
            continue
        if data.x.shape[1] != features:
            raise ValueError(f"{name}: {data.x.shape[1]} features, the model has {features}")
        if classes is not None and (strange := sorted(set(data.y.tolist()) - set(classes.tolist()))):
            raise ValueError(f"{name}: labels {strange} are not among the classes {classes.tolist()}")


def known_classes(classes: Sequence[Any] | Array | None, data: Examples) -> Array:
    """Return the classes that a model is to be told, sorted.

    Raises
    ------
    ValueError
        They are not told, are fewer than two, or lack one that is in the examples.
    """
    if classes is None:
        raise ValueError("classes: all classes of the task are needed for a model that was not trained before")
    known: Array = np.unique(np.asarray(classes))
    if np.ndim(classes) != 1 or not is_finite(known):
        raise ValueError(f"classes: {classes!r}; a list of all classes is needed")
    if len(known) < 2:
        raise ValueError(f"classes: {known.tolist()}; at least two are needed")
    if strange := sorted(set(data.y.tolist()) - set(known.tolist())):
        raise ValueError(f"train_data: labels {strange} are not among the classes {known.tolist()}")
    return known


def check_trained_for(model: Any, classes: Sequence[Any] | Array | None) -> None:
    """Check that a model which was trained before knows the classes of the task.

    Raises
    ------
    ValueError
        It knows others.
    """
    if classes is None:
        return
    known = np.unique(np.asarray(classes))
    if not np.array_equal(known, getattr(model, "classes_", ())):
        raise ValueError(f"classes: {known.tolist()}, but the model was trained for others")


def completed(data: Examples, classes: Array | None) -> tuple[Array, Array, Array | None]:
    """Add one example of weight 0 for each class that is missing.

    Parameters
    ----------
    classes
        All that the model is to know; None for a regression.

    Returns
    -------
    x, y
        The examples, those that were added last.
    weight
        Of each; None when none was added.
    """
    x, y = data
    missing = classes[~np.isin(classes, y)] if classes is not None else np.empty(0)
    if not len(missing):
        return x, y, None
    weight = np.concatenate([np.ones(len(y)), np.zeros(len(missing))])
    return np.concatenate([x, np.repeat(x[:1], len(missing), axis=0)]), np.concatenate([y, missing]), weight
