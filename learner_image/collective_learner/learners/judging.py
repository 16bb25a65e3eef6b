"""How a learner with one network judges weights and takes them, whatever the framework.

The network shows other weights for the time of a test, and has its own again afterwards. Weights that were tested last
are not tested again when they are accepted; and with one's own proposal comes the optimizer that made it.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Generic, TypeVar

from collective_learner.learners.common import fingerprint, match_weights, verdict
from collective_learner.learners.steered import LastTested, SteeredLearner
from collective_learner.mli import ProposedWeights, Weights

if TYPE_CHECKING:
    from collective_learner.mli import Array

OptimizerState = TypeVar("OptimizerState")


class JudgingLearner(SteeredLearner, Generic[OptimizerState]):
    """Tests and accepts; a framework says how its network shows, scores and takes arrays."""

    minimise_criterion: bool
    vote_score: float
    """Of the weights that are held."""

    def __init__(self) -> None:
        super().__init__()
        self._form: Mapping[str, Array] = {}
        """Names, shapes and types of the weights."""
        self._last_tested = LastTested()
        self._proposed: tuple[bytes, OptimizerState] | None = None
        """After a training with need_reset_optimizer=False: the fingerprint of the proposal, and the optimizer that
        made it, should it be accepted."""

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Score weights, and put everything back as it was."""
        arrays = match_weights(weights, self._form)
        with self._showing(arrays):
            vote_score = self._vote_score(arrays)
            test_score = self._test_score()
        self._last_tested.keep(arrays, vote_score)
        return verdict(
            weights,
            vote_score=vote_score,
            test_score=test_score,
            own_score=self.vote_score,
            minimise=self.minimise_criterion,
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        """Take the weights, and with one's own proposal the optimizer that made it.

        Those that were tested last are not tested again.
        """
        arrays = match_weights(weights, self._form)
        vote_score = self._last_tested.score_of(arrays)
        if vote_score is None:
            with self._showing(arrays):
                vote_score = self._vote_score(arrays)
        self._load(arrays)
        self.vote_score = vote_score
        if self._proposed is not None:
            own, optimizer = self._proposed
            if own == self._fingerprint_of(arrays):
                self._go_on_with(optimizer)
        self._proposed = None

    def _fingerprint_of(self, arrays: Mapping[str, Array]) -> bytes:
        """Know a proposal again."""
        return fingerprint(arrays)

    @abc.abstractmethod
    def _showing(self, arrays: Mapping[str, Array]) -> AbstractContextManager[None]:
        """Have the network hold these weights, and put everything back afterwards."""

    @abc.abstractmethod
    def _vote_score(self, arrays: Mapping[str, Array]) -> float:
        """Score the weights that are shown, on what the learner votes on."""

    @abc.abstractmethod
    def _test_score(self) -> float:
        """Score the weights that are shown, for watching; 0 without a test set."""

    @abc.abstractmethod
    def _load(self, arrays: Mapping[str, Array]) -> None:
        """Take the weights."""

    @abc.abstractmethod
    def _go_on_with(self, optimizer: OptimizerState) -> None:
        """Take the optimizer of a training."""
