"""A learner around a model of scikit-learn that can go on from given weights.

Which models those are, where their weights are and how they train is told by their kinds: `sklearn_arrays` and
`sklearn_boosting`. Training works on a copy of the model, whose weights then are the proposal; testing puts the weights
that arrived beside what else the model is. So nothing has to be put back, and there are never more than two copies of
the weights (three for a learner with need_reset_optimizer=False, which keeps the model that it proposed).

The module itself does not import scikit-learn: whoever made the model has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.learners.checks import whole_number
from collective_learner.learners.common import derive_seed, fingerprint, is_finite, verdict
from collective_learner.learners.sklearn_arrays import arrays_of
from collective_learner.learners.sklearn_boosting import boosting_of, is_boosted
from collective_learner.learners.sklearn_data import Examples, check_fit, checked
from collective_learner.learners.sklearn_kind import Kind, Trained, Training
from collective_learner.learners.steered import LastTested, SteeredLearner, refuse_diverged
from collective_learner.mli import (
    OptionRefusedError,
    ProposedWeights,
    TrainingOptions,
    TrainingSummary,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collective_learner.export.exporter import Exporter
    from collective_learner.mli import Array

    Criterion = Callable[[Any, Array, Array], float]
    """Scores a fitted model on inputs and labels."""


def log_loss(model: Any, x: Array, y: Array) -> float:
    """Mean negative logarithm of the probability that a classifier gives to the true class; lower is better."""
    if not hasattr(model, "predict_proba"):
        raise ValueError(
            f"log_loss needs a model with probabilities; {model!r} has no predict_proba. What needs none is "
            "criterion=accuracy, with minimise_criterion=False"
        )
    chances = np.asarray(model.predict_proba(x), dtype=np.float64)
    true = chances[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-np.log(np.clip(true, 1e-15, None)).mean())


def accuracy(model: Any, x: Array, y: Array) -> float:
    """Share of examples that a classifier gets right."""
    return float(np.mean(model.predict(x) == y))


def mean_squared_error(model: Any, x: Array, y: Array) -> float:
    """Mean of the squared differences between what a regressor predicts and what is true; lower is better."""
    return float(np.mean(np.subtract(model.predict(x), y, dtype=np.float64) ** 2))


def r_squared(model: Any, x: Array, y: Array) -> float:
    """Share of the variance of what is true that a regressor predicts; 1 at best, below 0 worse than the mean."""
    variance = float(np.var(np.asarray(y, dtype=np.float64)))
    missed = mean_squared_error(model, x, y)
    if variance == 0:  # as scikit-learn has it
        return 1.0 if missed == 0 else 0.0
    return 1 - missed / variance


class SklearnLearner(SteeredLearner):
    """A learner for linear models, perceptrons and histogram gradient boosting.

    FedProx's proximal term acts after each batch, at the rates that the batch's steps had, see `sklearn_proximal`;
    models that are not trained by stochastic gradient descent refuse it.

    Parameters
    ----------
    model
        Copied, not changed. One that was trained before keeps its weights. Else they start at zero, at random for
        perceptrons, and without a tree for boosting. Boosting's weights grow: they can be voted on, not averaged.
    train_data, vote_data, test_data
        Pairs (x, y): x of shape (examples, features). Without `test_data` the test score is 0.
    need_reset_optimizer
        Every training starts with fresh learning rate schedule and averages. When False they go on from the last
        proposal of this learner that was accepted.
    criterion
        ``criterion(model, x, y)``, what the vote is about. Strictly better wins. By default `log_loss` for a
        classifier, `mean_squared_error` for a regressor.
    minimise_criterion
        Whether lower is better.
    test_criterion
        What the test score tells, for watching only. By default `accuracy` for a classifier, `r_squared` for a
        regressor.
    classes
        All classes that any learner of the task may see. Needed for a classifier that was not trained before.
    epochs
        Passes over the training data in a proposal: with partial_fit all batches once, with warm_start one iteration
        of the model's solver, with boosting one tree more (a class).
    batch_size
        Examples in one call of partial_fit.
    seed
        Of the order of examples, and of a perceptron's first weights. Together with the weights and the options it
        decides a training completely.

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
        criterion: Criterion | None = None,
        minimise_criterion: bool = True,
        test_criterion: Criterion | None = None,
        classes: Sequence[Any] | Array | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.need_reset_optimizer = need_reset_optimizer
        self.minimise_criterion = minimise_criterion
        self.epochs = whole_number("epochs", epochs, at_least=1)
        self.batch_size = whole_number("batch_size", batch_size, at_least=1)
        self.seed = whole_number("seed", seed, at_least=0)
        if isinstance(model, type):
            raise ValueError(f"model: the class {model.__name__}; an instance of one is needed")
        missing = is_boosted(model)
        self.train_data = checked("train_data", train_data, missing=missing)
        self.vote_data = checked("vote_data", vote_data, missing=missing)
        self.test_data = None if test_data is None else checked("test_data", test_data, missing=missing)
        self._kind: Kind
        prepare = boosting_of if is_boosted(model) else arrays_of
        self._model, self._kind = prepare(model, self.train_data, classes, seed=seed)
        check_fit(self._model, train_data=self.train_data, vote_data=self.vote_data, test_data=self.test_data)
        classifies = hasattr(self._model, "classes_")
        usual = (log_loss, accuracy) if classifies else (mean_squared_error, r_squared)
        self.criterion = _criterion("criterion", criterion, usual[0])
        self.test_criterion = _criterion("test_criterion", test_criterion, usual[1])
        # A training with need_reset_optimizer=False: what it made of the model, should the proposal be accepted.
        self._proposed: tuple[bytes, Any] | None = None
        self._last_tested = LastTested()
        self.vote_score = self._vote_score(self._model, self._kind.views(self._model))

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        """Train with these options from now on; a proximal term needs a model whose rates are known."""
        if options.proximal_mu and not self._kind.has_known_rates(self._model):
            kind = type(self._model).__name__
            raise OptionRefusedError(
                f"proximal_mu: {options.proximal_mu:g}; the rates of {kind} are not known, 0 is needed"
            )
        super().mli_set_training_options(options)

    def mli_propose_weights(self) -> Weights:
        """Train a copy of the model, and return its weights."""
        self._stop.clear()
        own = self._kind.views(self._model)
        model, asked = self._trained(own)
        weights = self._kind.views(model)
        refuse_diverged(weights, finite=frozenset(name for name, array in own.items() if is_finite(array)))
        metric = "loss" if self.minimise_criterion else "score"
        score = self._score(asked, weights, self.train_data, self.criterion)
        if not self.need_reset_optimizer:
            weights = {name: array.copy() for name, array in weights.items()}
            self._proposed = (fingerprint(weights), model)
        summary = TrainingSummary(examples=len(self.train_data.y), metrics={metric: score})
        return Weights(weights=weights, training_summary=summary, growing=self._kind.growing)

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Score weights beside one's own."""
        matched = self._kind.match(self._model, weights)
        model = self._kind.showing(self._model, matched)
        vote_score = self._vote_score(model, matched)
        test = self.test_data
        self._last_tested.keep(matched, vote_score)
        return verdict(
            weights,
            vote_score=vote_score,
            test_score=0.0 if test is None else self._score(model, matched, test, self.test_criterion),
            own_score=self.vote_score,
            minimise=self.minimise_criterion,
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        """Take the weights, and with one's own proposal the state of the training that made it.

        Those that were tested last are not tested again.
        """
        matched = self._kind.match(self._model, weights)
        score = self._last_tested.score_of(matched)
        if score is None:
            score = self._vote_score(self._kind.showing(self._model, matched), matched)
        self.vote_score = score
        if self._proposed is not None and self._proposed[0] == fingerprint(matched):
            self._model = self._proposed[1]  # the same weights, and the optimizer that made them
        else:
            self._model = self._kind.taking(self._model, matched)
        self._proposed = None

    def mli_get_current_weights(self) -> Weights:
        """Return a copy of the weights."""
        return Weights(weights=self._copies(), growing=self._kind.growing)

    def exporter(self) -> Exporter:
        """Give the model to be exported, with inputs that it votes on."""
        from collective_learner.export.sklearn import SklearnExporter  # noqa: PLC0415 - only whoever exports needs it

        return SklearnExporter(self._model, self.vote_data.x, self._safetensors)

    def _safetensors(self) -> bytes:
        from safetensors.numpy import save  # noqa: PLC0415 - only whoever wants a file pays for it

        return bytes(save(self._copies()))

    def _copies(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self._kind.views(self._model).items()}

    def _trained(self, own: Mapping[str, Array]) -> Trained:
        seed = derive_seed(self.seed, self.options.round, fingerprint(own))
        training = Training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            rng=np.random.default_rng(seed),
            fresh=self.need_reset_optimizer,
            mu=self.options.proximal_mu,
            anchor=own,
            go_on=self._go_on,
            count=self._count,
        )
        return self._kind.trained(self._model, self.train_data, training)

    def _vote_score(self, model: Any, weights: Mapping[str, Array]) -> float:
        return self._score(model, weights, self.vote_data, self.criterion)

    def _score(self, model: Any, weights: Mapping[str, Array], data: Examples, criterion: Criterion) -> float:
        if not all(map(is_finite, weights.values())):
            return float("nan")  # scikit-learn raises on some of these, and answers class 0 for others
        return float(criterion(model, data.x, data.y))


def _criterion(name: str, given: Criterion | None, usual: Criterion) -> Criterion:
    if given is None:
        return usual
    if not callable(given):
        raise ValueError(f"{name}: {given!r}; a function of a model, x and y is needed")
    return given
