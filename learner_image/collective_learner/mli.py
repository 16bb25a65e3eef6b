"""The Machine Learning Interface: what a learner can do, and what passes between learners.

Names and signatures are those that users of Fetch.ai colearn know, so that a learner written for it runs here by
changing its imports. Nothing in this module needs a framework; numpy is needed by whoever makes the arrays.
"""

from __future__ import annotations

import abc
import enum
import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    """Any numeric numpy array."""


class ModelFormat(enum.IntEnum):
    """How the bytes of a `ColearnModel` are to be read; numbers below 100 are colearn's."""

    PICKLE_WEIGHTS_ONLY = 1
    ONNX = 2
    SAFETENSORS = 100


class ErrorCodes(enum.IntEnum):
    """Why a training did not do what was asked."""

    NONE = 0
    DP_BUDGET_EXCEEDED = 1


@dataclass(frozen=True, kw_only=True)
class DiffPrivBudget:
    """Differential privacy: what may be spent and what has been."""

    target_epsilon: float
    target_delta: float
    consumed_epsilon: float
    consumed_delta: float


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What a training tells beside its weights.

    Parameters
    ----------
    dp_budget
        The privacy budget after this training; None without differential privacy.
    examples
        How many examples the training set holds; 0 when the learner does not say.
    metrics
        Of the training, by name, for example ``{"loss": 0.31}``.
    error_code
        Why there was no training, if there was none.
    """

    dp_budget: DiffPrivBudget | None = None
    examples: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    error_code: ErrorCodes = ErrorCodes.NONE


@dataclass(frozen=True)
class DiffPrivConfig:
    """Differential privacy by DP-SGD: what may be spent, and how.

    Parameters
    ----------
    target_epsilon
        What all trainings together may spend, above 0; a training that would go past it does not happen.
    target_delta
        The probability with which that bound may fail, above 0 and below 1; well below one over the examples.
    max_grad_norm
        The length that each example's gradient is clipped to, above 0.
    noise_multiplier
        The noise's standard deviation, in units of `max_grad_norm`; above 0.

    Raises
    ------
    ValueError
        A number is out of its range; the message names it.
    """

    target_epsilon: float
    target_delta: float
    max_grad_norm: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            below = 1 if each.name == "target_delta" else math.inf
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < below:
                above = "above 0 and below 1" if below == 1 else "above 0"
                raise ValueError(f"{each.name}: {value!r}, a number {above} is needed")


class TrainingStoppedError(Exception):
    """A training ended early because `mli_stop_training` said so; the learner is as it was before."""


class TrainingDivergedError(ArithmeticError):
    """A training ended in weights that are not finite, which nobody should be asked to vote on or to average."""


class WeightsRefusedError(ValueError):
    """Weights that arrived do not fit a learner's model, or would break it; the message names the tensor."""


class OptionRefusedError(ValueError):
    """A learner cannot train with an option; training without it would be another algorithm, in silence."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What the caller of a training decides about it.

    Parameters
    ----------
    round
        The number of the round; 0 when nobody counts. It goes into the randomness of the training, so that a round
        that follows a rejected proposal does not propose the very same again.
    proximal_mu
        FedProx's mu, at least 0: ``mu / 2 * |w - w0|^2``, w0 being the weights that the training starts from, is added
        to the loss. Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020.

    Raises
    ------
    ValueError
        A number is out of its range.
    """

    round: int = 0
    proximal_mu: float = 0.0

    def __post_init__(self) -> None:
        if self.round < 0:
            raise ValueError(f"round: {self.round}, a whole number of at least 0 is needed")
        if not 0 <= self.proximal_mu < math.inf:
            raise ValueError(f"proximal_mu: {self.proximal_mu}, a number of at least 0 is needed")


@dataclass
class Weights:
    """The weights of a model.

    Parameters
    ----------
    weights
        numpy arrays, as a list in the model's own order or as a dict by name.
    training_summary
        How they came about, when they come from a training.
    growing
        The tensors that have as many rows as there is to tell, such as the nodes of trees, and the most rows that each
        may come to have. Their numbers of rows differ between learners and rounds, so such weights are voted on or
        handed on, and never averaged.
    """

    weights: Sequence[Array] | Mapping[str, Array]
    training_summary: TrainingSummary | None = None
    growing: Mapping[str, int] = field(default_factory=dict)


@dataclass
class ProposedWeights:
    """A learner's verdict on proposed weights.

    Parameters
    ----------
    weights
        What was judged; None on the way over the wire, where the coordinator has them already.
    vote_score
        The score on the learner's private vote set, in the learner's own criterion.
    test_score
        The score on the learner's test set, for watching only; 0 without a test set.
    vote
        True when these weights are better here than the learner's own.
    """

    weights: Weights | None
    vote_score: float
    test_score: float
    vote: bool


@dataclass(frozen=True)
class ColearnModel:
    """A model for use outside: its format, a file name (may be empty), its bytes, and why it is in no other format."""

    model_format: ModelFormat
    model_file: str
    model: bytes | None
    description: str = ""


class MachineLearningInterface(abc.ABC):
    """What a learner does in a round. One learner is called by one caller at a time.

    Proposing and testing leave the learner as it was (weights, buffers, optimizer, random state); only accepting
    changes it. Arrays that come in to be tested are read-only views of what was received. Weights that are proposed
    belong to the caller: later calls leave their arrays alone, since they are still being sent. A learner that
    `accepts_views` is handed the very object that it tested last, so it may know it again and need no second test.
    """

    criterion: Any = "score"
    """What the vote is about, for people: a name, or the function that scores."""

    accepts_views: ClassVar[bool] = False
    """Whether accepted arrays may be read-only views. A learner that says so copies what it keeps; any other gets
    arrays of its own, because it may train in the very arrays that it was given."""

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        """Say how trainings go from now on, until this is called again; the server does before each.

        Not abstract: a learner that does not know options trains as ever where they are at their defaults.

        Raises
        ------
        OptionRefusedError
            This learner cannot train so.
        """
        if options.proximal_mu:
            raise OptionRefusedError(
                f"proximal_mu: {options.proximal_mu:g}; {type(self).__name__} has no proximal term (FedProx), takes 0"
            )

    def mli_stop_training(self) -> None:  # noqa: B027 - not abstract: a learner that cannot stop trains to its end
        """Have the training that is going on, if any, end soon with `TrainingStoppedError` and nothing changed.

        Called from another thread, perhaps more than once, and never after the training has ended. What a training
        returns although it was told to stop is thrown away. A training starts with every earlier stop forgotten.
        """

    examples_trained: int | None = None
    """Examples that trainings have gone through so far, counted while they do, for a server's metrics; None for a
    learner that does not count."""

    @abc.abstractmethod
    def mli_propose_weights(self) -> Weights:
        """Train on the private data, and return the new weights while keeping one's own."""

    @abc.abstractmethod
    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Score weights on the private vote and test sets, and vote: better than one's own, or not."""

    @abc.abstractmethod
    def mli_accept_weights(self, weights: Weights) -> None:
        """Make these weights one's own, and measure the score that later proposals have to beat."""

    @abc.abstractmethod
    def mli_get_current_weights(self) -> Weights:
        """Return one's own weights."""

    @abc.abstractmethod
    def mli_get_current_model(self) -> ColearnModel:
        """Return one's own model in a format that other programs load."""
