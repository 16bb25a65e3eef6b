"""Gradient boosting that goes on from anybody's trees: HistGradientBoostingClassifier and -Regressor.

Why this one: it is part of scikit-learn, which is there anyway (XGBoost's package brings CUDA's libraries, and its
models would go through a parser of its own, of bytes from strangers), takes missing numbers, and is the one that
scikit-learn itself recommends beyond some thousand examples. Its ``warm_start`` adds trees to those that it has.

What keeps its trees, and goes on from them, are private attributes of scikit-learn, since there are no others; they
are used in this module alone, and a scikit-learn whose trees look otherwise is refused. Two things need help. `fit`
asks its trees about inputs that it has put into bins, whose borders are each site's own; so it is told what the trees
say of the inputs themselves. And an ensemble without trees counts as new to it, with a baseline of its own; so it is
told that it is not.

A proposal adds as many trees (a class) as it has epochs: each tree is one pass over the examples. `max_iter` is the
most that the whole ensemble may have; one that has them proposes itself, which nobody finds better.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.learners.sklearn_data import Examples, check_trained_for, completed, known_classes
from collective_learner.learners.sklearn_kind import Kind, Trained, Training, random_state
from collective_learner.learners.sklearn_trees import BASELINE, FIELDS, SIZES, Bounds, check, to_arrays, to_nodes

if TYPE_CHECKING:
    from collective_learner.mli import Array, Weights

_logger = logging.getLogger(__name__)

_BASE = "BaseHistGradientBoosting"
_NO_CATEGORIES = np.zeros((0, 8), np.uint32)


def is_boosted(model: Any) -> bool:
    """Whether a model is one of those here; told by name, so that scikit-learn is not imported for it."""
    return any(base.__name__ == _BASE for base in type(model).__mro__)


def boosting_of(
    model: Any, data: Examples, classes: Sequence[Any] | Array | None, *, seed: int
) -> tuple[Any, Boosting]:
    """Copy a model, without a tree if it has none, and tell its kind.

    Raises
    ------
    ValueError
        A parameter does not go with learning together, or the classes are not told.
    """
    _check_parameters(model)
    model = copy.deepcopy(model)
    most, model.max_iter = model.max_iter, 1
    model.warm_start, model.early_stopping = True, False
    trained = hasattr(model, "_predictors")
    if trained:
        check_trained_for(model, classes)
        if model.n_iter_ > most:
            raise ValueError(f"max_iter: {most}, but the model has {model.n_iter_} iterations already")
    else:
        with random_state(model, seed):
            model.fit(*_first(model, data, classes))
    model.max_iter = most
    if model.is_categorical_ is not None:
        raise ValueError(
            f"categorical_features: {type(model).__name__} has some, whose trees do not travel; encode them as numbers"
        )
    (first, *_), *_ = model._predictors
    if set(first.nodes.dtype.names) != FIELDS:
        names = ", ".join(first.nodes.dtype.names)
        raise ValueError(f"model: the trees of this scikit-learn have the fields {names}, which are not known here")
    if not trained:
        model._predictors = []
    bounds = Bounds(
        features=model.n_features_in_,
        per_iteration=model.n_trees_per_iteration_,
        iterations=most,
        leaves=model.max_leaf_nodes,
    )
    return model, Boosting(bounds, tree=type(first), dtype=first.nodes.dtype)


def arrays_of_trees(model: Any) -> dict[str, Array]:
    """Write a model's trees as named arrays, see `sklearn_trees`."""
    return to_arrays(model._baseline_prediction, [tree.nodes for trees in model._predictors for tree in trees])


def link_of(model: Any) -> str:
    """Name the link between a regression's raw scores and its predictions, as scikit-learn does."""
    return type(model._loss.link).__name__


class Boosting(Kind):
    """Histogram gradient boosting.

    Parameters
    ----------
    bounds
        What trees must keep to.
    tree, dtype
        scikit-learn's class of a tree, and the type of its nodes.
    """

    def __init__(self, bounds: Bounds, *, tree: Callable[..., Any], dtype: np.dtype[Any]) -> None:
        super().__init__(growing=bounds.growing())
        self._bounds = bounds
        self._tree = tree
        self._dtype = dtype
        self._said: _Said | None = None

    def views(self, model: Any) -> dict[str, Array]:
        """Write the trees as arrays."""
        return arrays_of_trees(model)

    def match(self, model: Any, weights: Weights) -> dict[str, Array]:
        """Check arrays that arrived: names, types, and every node of every tree."""
        arrays = super().match(model, weights)
        check(arrays, self._bounds)
        return arrays

    def showing(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Give a model with these trees; those that it has already stay the same objects."""
        own = self.views(model)
        had = len(own[SIZES])
        if not all(np.array_equal(array, arrays[name][: len(array)]) for name, array in own.items()):
            had = 0
        shown = copy.copy(model)
        shown._baseline_prediction = np.array(arrays[BASELINE]).reshape(1, -1)
        nodes = to_nodes(arrays, self._dtype)[had:]
        trees = [self._tree(each, _NO_CATEGORIES, _NO_CATEGORIES) for each in nodes]
        each = self._bounds.per_iteration
        kept = model._predictors if had else []
        shown._predictors = [*kept, *(trees[at : at + each] for at in range(0, len(trees), each))]
        return shown

    def taking(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Give a model with these trees; they are copies anyway."""
        return self.showing(model, arrays)

    def trained(self, model: Any, data: Examples, training: Training) -> Trained:
        """Add trees to a copy."""
        grown = copy.copy(model)
        had = len(model._predictors)
        grown.max_iter = min(model.max_iter, had + training.epochs)
        if grown.max_iter == had:
            _logger.warning("the ensemble has all the trees that it may have: max_iter is %d", model.max_iter)
            return Trained(grown, asked=grown)
        x, y, weight = completed(data, getattr(model, "classes_", None))
        raw = self._raw(model, x)
        grown._predictors = _Watched(model._predictors, training.go_on)
        grown._feature_subsample_rng = training.rng
        with _going_on(grown, raw=raw):
            grown.fit(x, y, sample_weight=weight)
        training.count((len(grown._predictors) - had) * len(data.y))
        grown._predictors = [*grown._predictors]
        grown.max_iter = model.max_iter
        asked = copy.copy(grown)
        known = raw[: len(data.y)]  # `fit` has added what its trees say
        asked._raw_predict = lambda given, *more: known if given is data.x else grown._raw_predict(given, *more)
        return Trained(grown, asked)

    def _raw(self, model: Any, x: Array) -> Array:
        """Tell what the trees say of the training's inputs; only those are asked that have not been before.

        They are added up one after the other, as ever, so that no bit depends on who was asked when.
        """
        trees, baseline = model._predictors, model._baseline_prediction
        said = self._said
        if (
            said is None
            or not np.array_equal(said.baseline, baseline)
            or any(one is not other for one, other in zip_longest(said.trees, trees[: len(said.trees)]))
        ):
            said = _Said(baseline=baseline, trees=[], raw=baseline)
        asked = copy.copy(model)
        asked._predictors, asked._baseline_prediction = trees[len(said.trees) :], said.raw
        self._said = _Said(baseline=baseline, trees=trees, raw=asked._raw_predict(x))
        return self._said.raw.copy(order="K")


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What these trees say of the training's inputs."""

    baseline: Array
    trees: list[Any]
    raw: Array


class _Watched(list[Any]):
    """The list to which `fit` appends whenever an iteration begins: the moment at which a training can stop."""

    def __init__(self, items: Sequence[Any], go_on: Callable[[], None]) -> None:
        super().__init__(items)
        self._go_on = go_on

    def append(self, item: Any) -> None:
        self._go_on()
        super().append(item)


@contextmanager
def _going_on(model: Any, *, raw: Array) -> Iterator[None]:
    """Have `fit` go on from what the trees say of the training's inputs."""
    model._raw_predict = lambda *_, **__: raw
    model._is_fitted = lambda: True
    yield
    del model._raw_predict, model._is_fitted


def _first(model: Any, data: Examples, classes: Sequence[Any] | Array | None) -> tuple[Array, Array]:
    """Give the examples that shapes and baseline come from: of every class one more, so that none has probability 0."""
    from sklearn.base import is_classifier  # noqa: PLC0415 - the model's maker has imported it

    if not is_classifier(model):
        return data.x, data.y
    known = known_classes(classes, data)
    return (
        np.concatenate([data.x, np.repeat(data.x[:1], len(known), axis=0)]),
        np.concatenate([data.y, known]),
    )


def _check_parameters(model: Any) -> None:
    if not isinstance(model.max_leaf_nodes, int) or model.max_leaf_nodes < 2:
        raise ValueError(
            f"max_leaf_nodes: {model.max_leaf_nodes!r}, a whole number of at least 2 is needed: it bounds what other "
            "learners may send"
        )
    if not isinstance(model.max_iter, int) or model.max_iter < 1:
        raise ValueError(f"max_iter: {model.max_iter!r}, a whole number of at least 1 is needed")
    if model.early_stopping is True:
        raise ValueError("early_stopping: True, but votes and the task's `stop` decide on that; 'auto' or False")
