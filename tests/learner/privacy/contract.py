"""What every framework's private trainings promise alike: noise, batches by chance, budgets, ledgers.

A framework's tests say by a `Bench` how its learners are made and watched, and inherit the rest.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from collective_learner.environment import STATE_DIR
from collective_learner.mli import DiffPrivConfig, ErrorCodes, TrainingStoppedError, Weights
from collective_learner.privacy.accountant import epsilon_of
from collective_learner.privacy.charge import Charge
from collective_learner.privacy.ledger import LedgerError

Arrays = tuple[np.ndarray, np.ndarray]

X = np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32)
Y = np.arange(60) % 3
NO_NOISE, ANY = 1e-9, 1e300


def private(*, noise: float = 1.0, target: float = ANY, norm: float = 1.0) -> DiffPrivConfig:
    """Give a configuration that asks for little."""
    return DiffPrivConfig(target_epsilon=target, target_delta=1e-5, max_grad_norm=norm, noise_multiplier=noise)


def arrays_of(weights: Weights) -> list[np.ndarray]:
    """Give weights as a list, whether they are one or go by name."""
    found = weights.weights
    return list(found.values() if isinstance(found, dict) else found)


def moved_by(learner: Any) -> list[np.ndarray]:
    """By how much a proposal differs from what is held."""
    held, proposed = arrays_of(learner.mli_get_current_weights()), arrays_of(learner.mli_propose_weights())
    return [one - other for one, other in zip(held, proposed, strict=True)]


class Bench(abc.ABC):
    """A framework's learners, as the contract needs them."""

    resolution: int
    """Sampling rates are multiples of one over this."""

    @abc.abstractmethod
    def make(
        self,
        *,
        config: DiffPrivConfig,
        data: Arrays = (X, Y),
        batch_size: int = 10,
        steps: int | None = None,
        folder: Path | None = None,
    ) -> Any:
        """Make a learner with a small network for the data; its optimizer is SGD with a rate of 1."""

    @abc.abstractmethod
    def silent(self, *, config: DiffPrivConfig, batch_size: int, steps: int) -> Any:
        """Make one with 35,000 weights, whose loss depends on none of them."""

    @abc.abstractmethod
    def watch(
        self,
        learner: Any,
        data: Arrays,
        monkeypatch: pytest.MonkeyPatch,
        *,
        at_step: Callable[[int], object] = lambda done: None,
    ) -> list[Sequence[int]]:
        """Give a list that grows with the places of those who are drawn, a step at a time.

        Parameters
        ----------
        at_step
            Called after each with the number of all.
        """


class PrivacyContract:
    """Tests that hold for every bench; a subclass has one, and the fixture `seeded`."""

    bench: Bench

    @pytest.fixture(autouse=True)
    def in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep ledgers nowhere but where a test says."""
        monkeypatch.delenv(STATE_DIR, raising=False)

    @pytest.mark.parametrize(("noise", "norm", "batch_size"), [(1.3, 0.5, 10), (4.0, 2.0, 60)])
    def test_the_noise_has_the_deviation_that_was_promised(self, seeded, noise, norm, batch_size: int) -> None:
        def drawn_in(steps: int) -> np.ndarray:
            learner = self.bench.silent(config=private(noise=noise, norm=norm), batch_size=batch_size, steps=steps)
            return np.concatenate([step.ravel() for step in moved_by(learner)])

        drawn, promised = drawn_in(1), noise * norm / batch_size
        assert len(drawn) == 35000
        assert stats.kstest(drawn / promised, "norm").pvalue > 0.01
        assert abs(drawn.std() / promised - 1) < 5 / math.sqrt(2 * len(drawn))
        # And independent from step to step: deviations of sums grow with the root.
        assert abs(drawn_in(9).std() / (3 * promised) - 1) < 5 / math.sqrt(2 * len(drawn))

    def test_empty_batches_are_steps_that_spend_and_add_noise(self, seeded, monkeypatch) -> None:
        learner = self.bench.make(config=private(noise=2.0), batch_size=1, steps=200)
        batches = self.bench.watch(learner, (X, Y), monkeypatch)
        learner.mli_propose_weights()
        sizes = [len(batch) for batch in batches]
        assert len(sizes) == 200 and sizes.count(0) > 40
        (charge,) = learner._private.spending.ledger.charges
        assert (charge.steps, charge.noise_multiplier) == (200, 2.0)
        # A training of nothing but an empty batch moves the weights by noise, and is charged.
        learner._private.spending.planned = Charge(noise_multiplier=2.0, sample_rate=charge.sample_rate, steps=1)
        for _ in range(50):
            batches.clear()
            step = moved_by(learner)
            if len(batches[0]) == 0:
                break
        assert len(batches[0]) == 0
        assert all(np.abs(each).min() > 0 for each in step)
        assert learner._private.spending.ledger.charges[0].steps > 200

    def test_batches_are_drawn_by_poisson_sampling_at_the_rate_that_is_charged(self, seeded, monkeypatch) -> None:
        count, steps, resolution = 500, 200, self.bench.resolution
        data = np.arange(count, dtype=np.float32)[:, None] / count, np.zeros(count, np.int64)
        learner = self.bench.make(config=private(noise=5.0), data=data, batch_size=50, steps=steps)
        batches = self.bench.watch(learner, data, monkeypatch)
        learner.mli_propose_weights()
        rate = learner._private.spending.planned.sample_rate
        assert 0.1 <= rate < 0.1 + 2 / resolution and rate * resolution == int(rate * resolution)
        assert len(batches) == steps and all(len(set(batch)) == len(batch) for batch in batches)
        sizes = np.array([len(batch) for batch in batches])
        # Sizes vary as coin tosses do, and do not make up for one another.
        assert abs(sizes.mean() - 50) < 5 * math.sqrt(45 / steps)
        assert abs(sizes.var() / 45 - 1) < 5 * math.sqrt(2 / steps)
        times = np.bincount(np.concatenate([np.asarray(batch, int) for batch in batches]), minlength=count)
        assert stats.chisquare(times).pvalue > 0.01 and abs(times.var() / (steps * 0.09) - 1) < 5 * math.sqrt(2 / count)

    def test_a_rejected_proposal_is_charged_and_the_budget_ends_before_it_is_passed(self) -> None:
        spent_by_one = epsilon_of([self.bench.make(config=private())._private.spending.planned], delta=1e-5)
        learner = self.bench.make(config=private(target=2 * spent_by_one))
        told = []
        for _ in range(20):
            proposal = learner.mli_propose_weights()  # and nobody accepts it
            budget = proposal.training_summary.dp_budget
            told.append(budget.consumed_epsilon)
            assert budget.consumed_epsilon <= budget.target_epsilon and budget.consumed_delta == 1e-5
            if proposal.training_summary.error_code:
                break
        assert proposal.training_summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
        assert told[0] == pytest.approx(spent_by_one) and told[-1] == told[-2] and told[:-1] == sorted(set(told))
        held = arrays_of(learner.mli_get_current_weights())
        assert [each.tobytes() for each in arrays_of(proposal)] == [each.tobytes() for each in held]
        charges = learner._private.spending.ledger.charges
        assert learner.mli_propose_weights().training_summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
        assert learner._private.spending.ledger.charges == charges
        assert epsilon_of([*charges, learner._private.spending.planned], delta=1e-5) > 2 * spent_by_one

    def test_a_budget_too_small_for_one_training_spends_nothing(self) -> None:
        summary = self.bench.make(config=private(target=0.01)).mli_propose_weights().training_summary
        assert summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
        assert (summary.dp_budget.consumed_epsilon, summary.dp_budget.consumed_delta) == (0, 0)

    def test_a_training_that_is_stopped_has_spent_what_it_did(self, monkeypatch) -> None:
        learner = self.bench.make(config=private(), steps=10)
        stop = {3: learner.mli_stop_training}
        done = self.bench.watch(learner, (X, Y), monkeypatch, at_step=lambda steps: stop.get(steps, int)())
        held = [each.tobytes() for each in arrays_of(learner.mli_get_current_weights())]
        with pytest.raises(TrainingStoppedError):
            learner.mli_propose_weights()
        assert [each.tobytes() for each in arrays_of(learner.mli_get_current_weights())] == held
        ledger = learner._private.spending.ledger
        assert [charge.steps for charge in ledger.charges] == [len(done)] == [3]
        consumed = learner.mli_propose_weights().training_summary.dp_budget.consumed_epsilon
        assert consumed == pytest.approx(epsilon_of(ledger.charges, delta=1e-5))
        assert [charge.steps for charge in ledger.charges] == [13]

    def test_a_ledger_outlives_its_learner_and_refuses_other_data(self, tmp_path: Path) -> None:
        learner = self.bench.make(config=private(), folder=tmp_path)
        first = learner.mli_propose_weights().training_summary.dp_budget.consumed_epsilon
        del learner
        # Another noise is another charge on the same data.
        again = self.bench.make(config=private(noise=2.0), folder=tmp_path)
        assert again._private.spending.budget().consumed_epsilon == first
        assert again.mli_propose_weights().training_summary.dp_budget.consumed_epsilon > first
        with pytest.raises(LedgerError, match=r"about other data \(60 examples, .*, not 59 examples"):
            self.bench.make(config=private(), data=(X[:59], Y[:59]), folder=tmp_path)
        with pytest.raises(LedgerError, match="about other data"):
            self.bench.make(config=private(), data=(X + 1e-3, Y), folder=tmp_path)
