"""The Machine Learning Interface: what a learner can do, and what passes between learners.

Names and signatures are those that users of Fetch.ai colearn know, so that a learner written for it runs here by
changing its imports. Nothing in this module needs a framework; numpy is needed by whoever makes the arrays.
"""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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


@dataclass
class Weights:
    """The weights of a model.

    Parameters
    ----------
    weights
        numpy arrays, as a list in the model's own order or as a dict by name.
    training_summary
        How they came about, when they come from a training.
    """

    weights: Sequence[Array] | Mapping[str, Array]
    training_summary: TrainingSummary | None = None


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
    """A model for use outside: its format, a file name (may be empty) and its bytes."""

    model_format: ModelFormat
    model_file: str
    model: bytes | None


class MachineLearningInterface(abc.ABC):
    """What a learner does in a round. One learner is called by one caller at a time.

    Proposing and testing leave the learner as it was (weights, buffers, optimizer, random state); only accepting
    changes it. Arrays that come in are read-only views of what was received. Weights that are proposed belong to the
    caller: later calls leave their arrays alone, since they are still being sent. The server hands the very object that
    was tested last to `mli_accept_weights`, so a learner may know it again and need no second test.
    """

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
