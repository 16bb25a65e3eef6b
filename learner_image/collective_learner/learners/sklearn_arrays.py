"""Models of scikit-learn whose weights are arrays of fixed shapes: linear ones, and multi-layer perceptrons.

They learn by ``partial_fit``, batch by batch, or, where they have none, by ``fit`` with ``warm_start``: from the
weights held, as many iterations of their solver as a proposal has epochs. Weights exist before the first training, so
that all learners have the same shapes: zeros for linear models, the model's own random ones for perceptrons.

The module itself does not import scikit-learn: whoever made the model has.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.learners.sklearn_data import check_trained_for, completed, known_classes
from collective_learner.learners.sklearn_kind import SUPPORTED, Kind, Trained, Training, random_state
from collective_learner.learners.sklearn_proximal import has_known_rates, pull_back

if TYPE_CHECKING:
    from collective_learner.learners.sklearn_data import Examples
    from collective_learner.mli import Array

# An averaging SGD model (`average=True`) keeps its plain and its averaged weights apart, and shows one of them.
# Huber's regression goes on from its scale as well.
_HOLDERS = {
    "coef_": ("coef_", "_standard_coef", "_average_coef"),
    "intercept_": ("intercept_", "_standard_intercept", "_average_intercept"),
    "scale_": ("scale_",),
}
_LAYERS = ("coefs_", "intercepts_")
_NO_STEP = 1e-300
"""A rate that leaves every weight as it is; scikit-learn refuses 0."""


def arrays_of(
    model: Any, data: Examples, classes: Sequence[Any] | Array | None, *, seed: int
) -> tuple[Any, LinearModel | Perceptrons]:
    """Copy a model, with weights if it has none, and tell its kind.

    Raises
    ------
    ValueError
        It is of no kind that is known here, or the classes are not told.
    """
    by_batches = hasattr(model, "partial_fit")
    if not by_batches and not all(hasattr(model, name) for name in ("warm_start", "max_iter", "fit")):
        raise ValueError(
            f"model: {type(model).__name__} has neither partial_fit nor warm_start with max_iter; {SUPPORTED}"
        )
    if not by_batches and getattr(model, "solver", "") == "liblinear":
        raise ValueError(f"solver: 'liblinear' of {type(model).__name__} begins anew with every fit; 'lbfgs' goes on")
    model = copy.deepcopy(model)
    if hasattr(model, "warm_start"):
        model.warm_start = not by_batches  # partial_fit of perceptrons wants all classes in every batch otherwise
    trained = hasattr(model, "coef_") or hasattr(model, "coefs_")
    if trained:
        check_trained_for(model, classes)
    elif by_batches:
        _begin_by_batches(model, data, classes, seed)
    else:
        _begin_by_fit(model, data, classes, seed)
    kind: LinearModel | Perceptrons
    if _are_arrays([getattr(model, "coef_", None)]) and hasattr(model, "intercept_"):
        kind = LinearModel(by_batches=by_batches)
    elif all(_are_arrays(getattr(model, name, None)) for name in _LAYERS):
        kind = Perceptrons(by_batches=by_batches)
    else:
        raise ValueError(
            f"model: {type(model).__name__} has neither coef_ and intercept_ nor coefs_ and intercepts_; {SUPPORTED}"
        )
    if not trained:
        kind.begin(model)
    return model, kind


class ArraysKind(Kind, abc.ABC):
    """What linear models and perceptrons have in common.

    Parameters
    ----------
    by_batches
        Whether it learns by partial_fit, else by fit.
    """

    def __init__(self, *, by_batches: bool) -> None:
        super().__init__()
        self._by_batches = by_batches

    @abc.abstractmethod
    def begin(self, model: Any) -> None:
        """Put a model that has just got its shapes at where all learners begin."""

    @abc.abstractmethod
    def forget(self, model: Any) -> None:
        """Forget what the optimizer kept of earlier trainings."""

    def trained(self, model: Any, data: Examples, training: Training) -> Trained:
        """Train a copy, batch by batch or by one fit."""
        model = copy.deepcopy(model)
        if training.fresh:
            self.forget(model)
        with random_state(model, int(training.rng.integers(2**31))):
            if self._by_batches:
                self._train_by_batches(model, data, training)
            else:
                training.go_on()
                x, y, weight = completed(data, getattr(model, "classes_", None))
                _fit(model, x, y, weight, iterations=training.epochs)
                training.count(training.epochs * len(data.y))
        return Trained(model, asked=model)

    def _train_by_batches(self, model: Any, data: Examples, training: Training) -> None:
        from sklearn import config_context  # noqa: PLC0415 - the model's maker has imported it

        x, y = data
        with contextlib.ExitStack() as checked:
            for epoch in range(training.epochs):
                order = training.rng.permutation(len(y))
                for first in range(0, len(y), training.batch_size):
                    training.go_on()
                    batch = order[first : first + training.batch_size]
                    t = getattr(model, "t_", 0.0)
                    model.partial_fit(x[batch], y[batch])
                    if training.mu:
                        pull_back(model, training.anchor, mu=training.mu, first=t, steps=len(batch))
                    training.count(len(batch))
                    if epoch == first == 0:
                        # The model's parameters were looked at just now, and all examples when the learner was made:
                        # to do both again with each batch takes a twelfth of the time where there are two classes.
                        checked.enter_context(config_context(assume_finite=True, skip_parameter_validation=True))


class LinearModel(ArraysKind):
    """Models with coef_ and intercept_."""

    def begin(self, model: Any) -> None:
        """Begin at zero."""
        own = self.views(model)
        self.taking(model, {name: own[name] if name == "scale_" else np.zeros_like(own[name]) for name in own})
        self.forget(model)

    def views(self, model: Any) -> dict[str, Array]:
        """Give coef_ and intercept_."""
        # One type for all: scikit-learn turns a float32 intercept into float64 and back, as it averages or not.
        names = [name for name in _HOLDERS if hasattr(model, name)]
        return {name: np.asarray(getattr(model, name), dtype=model.coef_.dtype, order="C") for name in names}

    def showing(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Share all but the weights."""
        shown = copy.copy(model)
        for name, array in arrays.items():
            setattr(shown, name, array)
        return shown

    def taking(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Write into the model's own memory, wherever it keeps these weights."""
        for name, array in arrays.items():
            for holder in _HOLDERS[name]:
                own = getattr(model, holder, None)
                if isinstance(own, np.ndarray):
                    own[...] = array.reshape(own.shape)
                elif own is not None:
                    setattr(model, holder, type(own)(array))
        return model

    def forget(self, model: Any) -> None:
        """Start the learning rate's schedule and the averages again: both count examples from t_ on."""
        if hasattr(model, "t_"):
            model.t_ = 1.0
        self.taking(model, self.views(model))

    def has_known_rates(self, model: Any) -> bool:
        """Whether scikit-learn's SGD trains it."""
        return self._by_batches and has_known_rates(model)


class Perceptrons(ArraysKind):
    """MLPClassifier and MLPRegressor."""

    def begin(self, model: Any) -> None:
        """Begin at the model's own first weights."""
        self.forget(model)

    def views(self, model: Any) -> dict[str, Array]:
        """Give the layers' weights, by name and number."""
        return {f"{name}.{at}": array for name in _LAYERS for at, array in enumerate(getattr(model, name))}

    def showing(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Share all but the layers."""
        shown = copy.copy(model)
        for name in _LAYERS:
            setattr(shown, name, [arrays[f"{name}.{at}"] for at in range(len(getattr(model, name)))])
        return shown

    def taking(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Write into the model's own memory."""
        for name, own in self.views(model).items():
            own[...] = arrays[name]
        return model

    def forget(self, model: Any) -> None:
        """Have the next training make a new optimizer, and count from the beginning."""
        vars(model).pop("_optimizer", None)
        model.t_ = model.n_iter_ = model._no_improvement_count = 0
        model.loss_curve_, model.best_loss_ = [], np.inf


def _begin_by_batches(model: Any, data: Examples, classes: Sequence[Any] | Array | None, seed: int) -> None:
    """Have a model get its shapes from one example, and nothing else of it."""
    arguments: dict[str, Any] = {}
    if "classes" in inspect.signature(model.partial_fit).parameters:
        arguments["classes"] = known_classes(classes, data)
    rate = getattr(model, "learning_rate_init", None)  # of perceptrons; what other models learn here is zeroed
    if rate is not None:
        model.learning_rate_init = _NO_STEP
    with random_state(model, seed):
        model.partial_fit(data.x[:1], data.y[:1], **arguments)
    if rate is not None:
        model.learning_rate_init = rate


def _begin_by_fit(model: Any, data: Examples, classes: Sequence[Any] | Array | None, seed: int) -> None:
    from sklearn.base import is_classifier  # noqa: PLC0415 - the model's maker has imported it

    known = known_classes(classes, data) if is_classifier(model) else None
    x, y, weight = completed(data, known)
    with random_state(model, seed):
        _fit(model, x, y, weight, iterations=1)


def _fit(model: Any, x: Array, y: Array, weight: Array | None, *, iterations: int) -> None:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    arguments = {} if weight is None else {"sample_weight": weight}
    if weight is not None and "sample_weight" not in inspect.signature(model.fit).parameters:
        lacking = y[weight == 0].tolist()
        raise ValueError(
            f"train_data: no examples of the classes {lacking}, which {type(model).__name__} cannot do without"
        )
    most, model.max_iter = model.max_iter, iterations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a proposal is a few iterations, by intent
        model.fit(x, y, **arguments)
    model.max_iter = most


def _are_arrays(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(array, np.ndarray) for array in found)
