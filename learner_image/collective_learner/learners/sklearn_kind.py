"""The seam between SklearnLearner, which knows rounds, and the kinds of models, which know where their weights are."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from collective_learner.learners.common import match_weights

if TYPE_CHECKING:
    import numpy as np

    from collective_learner.learners.sklearn_data import Examples
    from collective_learner.mli import Array, Weights

SUPPORTED = (
    "supported are linear models with partial_fit or warm_start (SGDClassifier, SGDRegressor, Perceptron, "
    "LogisticRegression, PoissonRegressor, ElasticNet, ...), MLPClassifier and MLPRegressor, and "
    "HistGradientBoostingClassifier and HistGradientBoostingRegressor"
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training is told.

    Parameters
    ----------
    epochs
        Passes over the examples.
    batch_size
        Examples in a batch, for models that learn in batches.
    rng
        All randomness comes from it.
    fresh
        Whether an optimizer's state from earlier trainings is forgotten.
    mu, anchor
        Strength of FedProx's pull (0: none), and the weights that it pulls towards.
    go_on
        Called between steps; raises when the training is to stop.
    count
        Told of examples that were trained on.
    """

    epochs: int
    batch_size: int
    rng: np.random.Generator
    fresh: bool
    mu: float
    anchor: Mapping[str, Array]
    go_on: Callable[[], None]
    count: Callable[[int], None]


class Trained(NamedTuple):
    """What a training made.

    Parameters
    ----------
    model
        With its new weights.
    asked
        The same to whoever asks about the very inputs that it was trained on, and may know the answer.
    """

    model: Any
    asked: Any


@dataclass
class Kind(abc.ABC):
    """How models of one kind are trained, and where their weights are. The models it is given are fitted."""

    growing: Mapping[str, int] = field(default_factory=dict)
    """As `Weights.growing`."""

    @abc.abstractmethod
    def views(self, model: Any) -> dict[str, Array]:
        """Give a model's weights; they may be its own memory."""

    def match(self, model: Any, weights: Weights) -> dict[str, Array]:
        """Check weights that arrived, and give them in the order of the model's own.

        Raises
        ------
        WeightsRefusedError
            They do not fit the model, or would break it.
        """
        return match_weights(weights, self.views(model), growing=self.growing)

    @abc.abstractmethod
    def showing(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Give a model with these weights, for scoring; whatever else it is may be shared with the model."""

    @abc.abstractmethod
    def taking(self, model: Any, arrays: Mapping[str, Array]) -> Any:
        """Have the model hold copies of these weights; returns it, or another in its place."""

    @abc.abstractmethod
    def trained(self, model: Any, data: Examples, training: Training) -> Trained:
        """Train a copy of the model.

        Raises
        ------
        TrainingStoppedError
            The training was told to stop.
        """

    def has_known_rates(self, model: Any) -> bool:
        """Whether a proximal term can act on the model's steps."""
        return False


@contextmanager
def random_state(model: Any, seed: int) -> Iterator[None]:
    """Lend a model a seed: without one of its own it would draw from, and advance, the process's global generator."""
    if not hasattr(model, "random_state"):
        yield
        return
    own = model.random_state
    model.random_state = seed % 2**32  # the largest that scikit-learn takes is below it
    yield
    model.random_state = own
