"""A learner around an incremental linear model of scikit-learn: what has partial_fit, coef_ and intercept_.

A model of scikit-learn has no weights until it saw data, and infers its classes from what it saw; sites that saw
different classes would then have different shapes. So the classes are told in advance, and the weights exist, as zeros,
before the first training. Training works on a copy of the model, whose weights then are the proposal; testing puts the
weights that arrived beside what else the model is. So nothing has to be put back, and there are never more than two
copies of the weights (three for a learner with need_reset_optimizer=False, which keeps the model that it proposed).

The module itself does not import scikit-learn: whoever made the model has.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collective_learner.learners.checks import whole_number
from collective_learner.learners.common import (
    derive_seed,
    fingerprint,
    is_finite,
    match_weights,
    verdict,
)
from collective_learner.learners.sklearn_proximal import has_known_rates, pull_back
from collective_learner.learners.steered import LastTested, SteeredLearner, refuse_diverged
from collective_learner.mli import (
    OptionRefusedError,
    ProposedWeights,
    TrainingOptions,
    TrainingSummary,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from collective_learner.export.exporter import Exporter
    from collective_learner.mli import Array

    Criterion = Callable[[Any, Array, Array], float]
    """Scores a fitted model on inputs and labels."""

# An averaging SGD model (`average=True`) keeps its plain and its averaged weights apart, and shows one of them.
_HOLDERS = {
    "coef_": ("coef_", "_standard_coef", "_average_coef"),
    "intercept_": ("intercept_", "_standard_intercept", "_average_intercept"),
}


class Examples(NamedTuple):
    """Inputs, one row an example, and their labels."""

    x: Array
    y: Array


def log_loss(model: Any, x: Array, y: Array) -> float:
    """Mean negative logarithm of the probability that a classifier gives to the true class; lower is better."""
    if not hasattr(model, "predict_proba"):
        raise ValueError(f"log_loss needs a model with probabilities; {model!r} has no predict_proba")
    chances = np.asarray(model.predict_proba(x), dtype=np.float64)
    true = chances[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-np.log(np.clip(true, 1e-15, None)).mean())


def accuracy(model: Any, x: Array, y: Array) -> float:
    """Share of examples that a classifier gets right."""
    return float(np.mean(model.predict(x) == y))


class SklearnLearner(SteeredLearner):
    """A learner for incremental linear models, such as SGDClassifier.

    FedProx's proximal term acts after each batch, at the rates that the batch's steps had, see `sklearn_proximal`.

    Parameters
    ----------
    model
        With partial_fit; copied, not changed. One that was trained before keeps its weights, else they start at zero.
    train_data, vote_data, test_data
        Pairs (x, y): x of shape (examples, features). Without `test_data` the test score is 0.
    need_reset_optimizer
        Every training starts with fresh learning rate schedule and averages. When False they go on from the last
        proposal of this learner that was accepted.
    criterion
        ``criterion(model, x, y)``, what the vote is about. Strictly better wins.
    minimise_criterion
        Whether lower is better.
    test_criterion
        What the test score tells, for watching only.
    classes
        All classes that any learner of the task may see. Needed for a classifier that was not trained before.
    epochs
        Passes over the training data in a proposal.
    batch_size
        Examples in one call of partial_fit.
    seed
        Of the order of examples. Together with the weights and the options it decides a training completely.

    Raises
    ------
    ValueError
        For arguments that do not fit together; the message names them.
    """

    def __init__(
        self,
        model: Any,
        train_data: tuple[Array, Array],
        vote_data: tuple[Array, Array],
        test_data: tuple[Array, Array] | None = None,
        *,
        need_reset_optimizer: bool = True,
        criterion: Criterion = log_loss,
        minimise_criterion: bool = True,
        test_criterion: Criterion = accuracy,
        classes: Sequence[Any] | Array | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.need_reset_optimizer = need_reset_optimizer
        self.criterion = criterion
        self.minimise_criterion = minimise_criterion
        self.test_criterion = test_criterion
        self.epochs = whole_number("epochs", epochs, at_least=1)
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.seed = whole_number("seed", seed, at_least=0)
        self.train_data = _checked("train_data", train_data)
        self.vote_data = _checked("vote_data", vote_data)
        self.test_data = None if test_data is None else _checked("test_data", test_data)
        self._model = _initialised(model, self.train_data, classes)
        self._check_data()
        # A training with need_reset_optimizer=False: what it made of the model, should the proposal be accepted.
        self._proposed: tuple[bytes, Any] | None = None
        self._last_tested = LastTested()
        self.vote_score = self._score(self._model, self.vote_data, self.criterion)

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        """Train with these options from now on; a proximal term needs a model whose rates are known."""
        if options.proximal_mu and not has_known_rates(self._model):
            raise OptionRefusedError(
                f"proximal_mu: {options.proximal_mu:g}; the rates of {self._model!r} are not known, 0 is needed"
            )
        super().mli_set_training_options(options)

    def mli_propose_weights(self) -> Weights:
        """Train a copy of the model, and return its weights."""
        self._stop.clear()
        model, summary = self._train()
        weights = _views_of(model)
        if not self.need_reset_optimizer:
            weights = _weights_of(model)
            self._proposed = (fingerprint(weights), model)
        own = _views_of(self._model)
        refuse_diverged(weights, finite=frozenset(name for name, array in own.items() if is_finite(array)))
        return Weights(weights=weights, training_summary=summary)

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Score weights beside one's own."""
        matched = match_weights(weights, _views_of(self._model))
        model = self._with(matched)
        vote_score = self._score(model, self.vote_data, self.criterion)
        self._last_tested.keep(matched, vote_score)
        return verdict(
            weights,
            vote_score=vote_score,
            test_score=0.0 if self.test_data is None else self._score(model, self.test_data, self.test_criterion),
            own_score=self.vote_score,
            minimise=self.minimise_criterion,
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        """Take the weights, and with one's own proposal the state of the training that made it.

        Those that were tested last are not tested again.
        """
        matched = match_weights(weights, _views_of(self._model))
        score = self._last_tested.score_of(matched)
        self.vote_score = self._score(self._with(matched), self.vote_data, self.criterion) if score is None else score
        if self._proposed is not None and self._proposed[0] == fingerprint(matched):
            self._model = self._proposed[1]  # the same weights, and the optimizer that made them
        else:
            _write_weights(self._model, matched)
        self._proposed = None

    def mli_get_current_weights(self) -> Weights:
        """Return a copy of the weights."""
        return Weights(weights=_weights_of(self._model))

    def exporter(self) -> Exporter:
        """Give the model to be exported, with inputs that it votes on."""
        from collective_learner.export.sklearn import SklearnExporter  # noqa: PLC0415 - only whoever exports needs it

        return SklearnExporter(self._model, self.vote_data.x, self._safetensors)

    def _safetensors(self) -> bytes:
        from safetensors.numpy import save  # noqa: PLC0415 - only whoever wants a file pays for it

        return bytes(save(_weights_of(self._model)))

    def _train(self) -> tuple[Any, TrainingSummary]:
        model = copy.deepcopy(self._model)
        if self.need_reset_optimizer:
            _reset_optimizer(model)
        own, mu = _views_of(self._model), self.options.proximal_mu
        rng = np.random.default_rng(derive_seed(self.seed, self.options.round, fingerprint(own)))
        x, y = self.train_data
        with _random_state(model, int(rng.integers(2**31))):
            for _ in range(self.epochs):
                order = rng.permutation(len(y))
                for first in range(0, len(y), self.batch_size):
                    self._go_on()
                    batch = order[first : first + self.batch_size]
                    t = getattr(model, "t_", 0.0)
                    model.partial_fit(x[batch], y[batch])
                    if mu:
                        pull_back(model, own, mu=mu, first=t, steps=len(batch))
                    self._count(len(batch))
        metric = "loss" if self.minimise_criterion else "score"
        score = self._score(model, self.train_data, self.criterion)
        return model, TrainingSummary(examples=len(y), metrics={metric: score})

    def _score(self, model: Any, data: Examples, criterion: Criterion) -> float:
        if not all(map(is_finite, _views_of(model).values())):
            return float("nan")  # scikit-learn raises on some of these, and answers class 0 for others
        return float(criterion(model, data.x, data.y))

    def _with(self, matched: Mapping[str, Array]) -> Any:
        """Show a model with these weights for scoring; all else is shared with one's own."""
        model = copy.copy(self._model)
        for name, array in matched.items():
            setattr(model, name, array)
        return model

    def _check_data(self) -> None:
        features = self._model.coef_.shape[-1]
        classes = getattr(self._model, "classes_", None)
        named = {"train_data": self.train_data, "vote_data": self.vote_data, "test_data": self.test_data}
        for name, data in named.items():
            if data is None:
                continue
            if data.x.shape[1] != features:
                raise ValueError(f"{name}: {data.x.shape[1]} features, the model has {features}")
            if classes is None:
                continue
            if strange := sorted(set(data.y.tolist()) - set(classes.tolist())):
                raise ValueError(f"{name}: labels {strange} are not among the classes {classes.tolist()}")


def _checked(name: str, data: tuple[Array, Array]) -> Examples:
    x, y = data
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise ValueError(f"{name}: x of shape {x.shape} and y of shape {y.shape}; (n, features) and (n,) are needed")
    if len(y) == 0:
        raise ValueError(f"{name}: no examples; at least one is needed")
    return Examples(x, y)


def _initialised(model: Any, train_data: Examples, classes: Sequence[Any] | Array | None) -> Any:
    """Copy a model, with weights if it has none: shapes come from one call of partial_fit, values are zero."""
    if not hasattr(model, "partial_fit"):
        raise ValueError(f"model: {model!r} has no partial_fit; an incremental model is needed")
    model = copy.deepcopy(model)
    known = None if classes is None else np.unique(classes)
    trained = hasattr(model, "coef_")
    if trained and known is not None and not np.array_equal(known, getattr(model, "classes_", ())):
        raise ValueError(f"classes: {known.tolist()}, but the model was trained for others")
    if not trained:
        arguments: dict[str, Any] = {}
        if "classes" in inspect.signature(model.partial_fit).parameters:
            if known is None:
                raise ValueError("classes: all classes of the task are needed for a model that was not trained before")
            if len(known) < 2 or train_data.y[0] not in known:
                raise ValueError(f"classes: {known.tolist()}; at least two, and every label of train_data, are needed")
            arguments["classes"] = known
        with _random_state(model, 0):
            model.partial_fit(train_data.x[:1], train_data.y[:1], **arguments)
    if not all(isinstance(getattr(model, name, None), np.ndarray) for name in _HOLDERS):
        raise ValueError(f"model: {model!r} has no coef_ and intercept_; a linear model is needed")
    if not trained:
        _write_weights(model, {name: np.zeros_like(array) for name, array in _weights_of(model).items()})
        _reset_optimizer(model)
    return model


@contextmanager
def _random_state(model: Any, seed: int) -> Iterator[None]:
    """Lend a model a seed: without one of its own it would draw from, and advance, the process's global generator."""
    if not hasattr(model, "random_state"):
        yield
        return
    own = model.random_state
    model.random_state = seed
    yield
    model.random_state = own


def _views_of(model: Any) -> dict[str, Array]:
    # One type for all: scikit-learn turns a float32 intercept into float64 and back, as it averages or not.
    return {name: np.asarray(getattr(model, name), dtype=model.coef_.dtype, order="C") for name in _HOLDERS}


def _weights_of(model: Any) -> dict[str, Array]:
    return {name: array.copy() for name, array in _views_of(model).items()}


def _write_weights(model: Any, weights: Mapping[str, Array]) -> None:
    for name, holders in _HOLDERS.items():
        for holder in holders:
            array = getattr(model, holder, None)
            if array is not None:
                array[...] = weights[name].reshape(array.shape)


def _reset_optimizer(model: Any) -> None:
    """Start the learning rate's schedule and the averages again: both count examples from t_ on."""
    if hasattr(model, "t_"):
        model.t_ = 1.0
    _write_weights(model, _views_of(model))
