"""What every private training does alike, whatever trains: it plans, asks, charges before it begins, and tells.

A learner of one's own gets differential privacy by it: it says what it will do to the data, trains only where there is
no refusal, and tells of every step. That what it says is true, nobody can check for it: each example is in a batch with
the probability that is charged, by itself; what it adds is no longer than the clipping norm; and the noise has the
deviation that is charged and comes from randomness that nobody else has.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from collective_learner.mli import DiffPrivBudget, DiffPrivConfig, ErrorCodes, TrainingSummary
from collective_learner.privacy.accountant import epsilon_after, epsilon_of
from collective_learner.privacy.charge import Charge
from collective_learner.privacy.ledger import open_ledger

if TYPE_CHECKING:
    from collective_learner.privacy.ledger import Taken

_logger = logging.getLogger(__name__)

_SAMPLED = 64
"""Examples that a data set is known again by, beside their number."""


class Spending:
    """The budget of a learner's trainings, and what they have spent of it.

    Parameters
    ----------
    config
        What may be spent.
    rate
        The probability with which each example is in a batch, independently of all others; see `rate_of`.
    steps
        Batches in a training, empty ones included.
    examples
        How many the training set holds.
    data
        What the data set is known again by, see `identity_of`.
    folder
        Of the ledger, see `open_ledger`.

    Raises
    ------
    ValueError
        `config` is something else. A `LedgerError` when there is no ledger to use.
    """

    def __init__(
        self,
        config: DiffPrivConfig,
        *,
        rate: float,
        steps: int,
        examples: int,
        data: str,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        config = checked(config)
        self.planned = Charge(noise_multiplier=config.noise_multiplier, sample_rate=rate, steps=steps)
        self.examples = examples
        self._config = config
        if config.target_delta * examples >= 1:
            _logger.warning(
                "privacy: target_delta %g is not below one over the %d examples: it allows giving one of them away",
                config.target_delta,
                examples,
            )
        self.ledger = open_ledger(folder, data=data)
        _logger.info(
            "privacy: epsilon is %.4g of %.4g; a training of %d steps, each with one in %.3g examples, makes it %.4g",
            epsilon_of(self.ledger.charges, delta=config.target_delta),
            config.target_epsilon,
            steps,
            1 / rate,
            self._after(),
        )

    def budget(self) -> DiffPrivBudget:
        """Tell what may be spent, and what has been."""
        charges = self.ledger.charges
        return DiffPrivBudget(
            target_epsilon=self._config.target_epsilon,
            target_delta=self._config.target_delta,
            consumed_epsilon=epsilon_of(charges, delta=self._config.target_delta),
            consumed_delta=self._config.target_delta if charges else 0.0,
        )

    def refusal(self) -> TrainingSummary | None:
        """Say why there will be no training; None where its budget lasts for all of it."""
        after = self._after()
        if after <= self._config.target_epsilon:
            return None
        budget = self.budget()
        _logger.warning(
            "privacy: no training: epsilon is %.4g of %.4g, and would be %.4g after it",
            budget.consumed_epsilon,
            self._config.target_epsilon,
            after,
        )
        return TrainingSummary(dp_budget=budget, examples=self.examples, error_code=ErrorCodes.DP_BUDGET_EXCEEDED)

    def charged(self) -> AbstractContextManager[Taken]:
        """Charge a training before it begins; it tells what it is given of each step, before anything is drawn."""
        return self.ledger.charged(self.planned)

    def summary(self) -> TrainingSummary:
        """Tell of a training that was done. Nothing of it is told that has no noise, such as its loss."""
        budget = self.budget()
        _logger.info("privacy: epsilon is %.4g of %.4g now", budget.consumed_epsilon, budget.target_epsilon)
        return TrainingSummary(dp_budget=budget, examples=self.examples)

    def _after(self) -> float:
        return epsilon_after(self.ledger.charges, self.planned, delta=self._config.target_delta)


def checked(config: object) -> DiffPrivConfig:
    """Return a configuration that is one.

    Raises
    ------
    ValueError
        It is something else.
    """
    if not isinstance(config, DiffPrivConfig):
        raise ValueError(f"diff_priv_config: {config!r}, a DiffPrivConfig is needed")
    return config


def rate_of(expected: int, examples: int, *, resolution: int) -> float:
    """Give the probability to be drawn for batches of some size, never below it, as random numbers can express it.

    Parameters
    ----------
    expected
        Examples in a batch, on average.
    examples
        Of which they are drawn.
    resolution
        Random numbers are multiples of one over so many: one of them is below such a multiple exactly that often.
    """
    return math.ceil(expected / examples * resolution) / resolution


def identity_of(count: int, parts_at: Callable[[int], Iterable[tuple[str, bytes]]]) -> str:
    """Give what a data set is known again by: its length, and examples from all over it.

    Parameters
    ----------
    count
        Examples in it, at least one.
    parts_at
        From an example's place to its parts, each with its type and shape in words, and its bytes.
    """
    digest = hashlib.sha256(str(count).encode())
    for at in sorted({index * (count - 1) // (_SAMPLED - 1) for index in range(_SAMPLED)}):
        for form, content in parts_at(at):
            digest.update(form.encode())
            digest.update(content)
    return f"{count} examples, {digest.hexdigest()[:32]}"
