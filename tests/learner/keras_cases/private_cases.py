"""The audit of a private training with Keras: what the accountant assumes is what is done."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import Bench, PrivacyContract, X, Y, private

from collective_learner import KerasLearner
from collective_learner.environment import STATE_DIR
from collective_learner.mli import TrainingDivergedError, TrainingOptions
from collective_learner.privacy import keras_dp
from collective_learner.privacy.accountant import epsilon_of
from collective_learner.privacy.charge import Charge
from collective_learner.privacy.keras_dp import PrivateTraining
from collective_learner.privacy.keras_examples import DrawnExamples

from .models import everything
from .private_models import LAYERS, assert_stepped, build, by_hand, make, step_of, whole


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


@pytest.fixture
def seeded(monkeypatch):
    """Makes private randomness the same every time, for statistics."""
    seeds = np.random.default_rng(3)
    monkeypatch.setattr(keras_dp.os, "urandom", seeds.bytes)
    monkeypatch.setattr(keras_dp.secrets, "randbits", lambda bits: int(seeds.integers(1 << 62)))


class Keras(Bench):
    """Learners with Keras."""

    resolution = 2**53

    def make(self, *, config, data=(X, Y), batch_size: int = 10, steps=None, folder=None) -> KerasLearner:
        """Make a learner."""
        network = build(shape=data[0].shape[1:])
        return make(network, config=config, data=data, batch_size=batch_size, steps=steps, privacy_folder=folder)

    def silent(self, *, config, batch_size: int, steps: int) -> KerasLearner:
        """Make one that learns nothing."""
        network = build(LAYERS.Dense(5000), loss=lambda y, outputs: 0.0 * keras.ops.sum(outputs, axis=-1))
        return make(network, config=config, batch_size=batch_size, steps=steps)

    def watch(self, learner, data, monkeypatch, *, at_step=lambda done: None) -> list[list[int]]:
        """Note what is asked for of the examples, and when a step ends."""
        steps, seen = [], []
        own_at, own_step = DrawnExamples.at, PrivateTraining._stepping

        def at(self, places):
            if isinstance(places, np.ndarray):
                seen.extend(places.tolist())
            return own_at(self, places)

        def stepping(self):
            step = own_step(self)
            seen.clear()  # of the looking before it

            def stepped(total) -> None:
                step(total)
                steps.append([*seen])
                seen.clear()
                at_step(len(steps))

            return stepped

        monkeypatch.setattr(DrawnExamples, "at", at)
        monkeypatch.setattr(PrivateTraining, "_stepping", stepping)
        return steps


class TestKerasKeepsTheContract(PrivacyContract):
    """With nothing of its own but the bench."""

    bench = Keras()


def test_what_is_counted_does_not_tell_who_was_drawn() -> None:
    learner = make(config=private(), batch_size=10, steps=7)
    told = []
    learner._private.train(go_on=lambda: None, count=told.append)
    assert told == [10] * 7


def test_randomness_is_the_systems_and_nobody_elses(monkeypatch) -> None:
    batches = Keras().watch(None, (X, Y), monkeypatch)
    proposals, drawn = [], []
    for make_one in (lambda: whole(noise=1.0, seed=0), lambda: make(config=private(), steps=1, seed=0)):
        for _ in range(2):
            learner = make_one()
            for _ in range(2):  # the learner's own randomness is put back after each
                keras.utils.set_random_seed(0)
                batches.clear()
                proposals.append(learner.mli_propose_weights().weights[0].tobytes())
                drawn.append(tuple(batches[0]))
    assert len(set(proposals)) == 8
    assert len(set(drawn[:4])) == 1  # all of them: it is the noise that differs
    assert len(set(drawn[4:])) > 1


def test_a_training_leaves_everything_as_it_was_and_tells_no_loss() -> None:
    network = build(LAYERS.Dense(8), LAYERS.Dropout(0.3), LAYERS.Dense(3), optimizer=keras.optimizers.Adam(0.01))
    learner = make(network, config=private(), need_reset_optimizer=False)
    for _ in range(2):
        before = everything(learner)
        proposal = learner.mli_propose_weights()
        assert everything(learner) == before
        assert proposal.training_summary.metrics == {} and proposal.training_summary.examples == 60
        verdict = learner.mli_test_weights(proposal)
        assert everything(learner) == before
        learner.mli_accept_weights(proposal)
        assert learner.vote_score == verdict.vote_score
    assert int(network.optimizer.iterations) == 12


def test_what_a_training_will_spend_is_told_before_it(caplog) -> None:
    with caplog.at_level(logging.INFO, "collective_learner.privacy"):
        learner = make(config=private(noise=1.5), fit={"epochs": 2})
    planned = learner._private.spending.planned
    assert planned == Charge(noise_multiplier=1.5, sample_rate=planned.sample_rate, steps=12)
    assert f"makes it {epsilon_of([planned], delta=1e-5):.4g}" in caplog.text


def test_a_training_that_fails_or_diverges_is_charged_and_the_next_one_is_sound() -> None:
    learner = whole(norm=0.5)
    expected, own = by_hand(learner.model, 0.5), learner._private._sum

    def fails(*given):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    learner._private._sum = fails
    with pytest.raises(MemoryError, match="out of memory with batches of 60 examples"):
        learner.mli_propose_weights()
    assert learner._private.spending.ledger.charges[0].steps == 1
    learner._private._sum = own
    assert_stepped(learner, expected)
    wild = make(build(optimizer=keras.optimizers.SGD(3e38)), config=private(norm=100.0))
    with pytest.raises(TrainingDivergedError):
        wild.mli_propose_weights()
    assert wild._private.spending.ledger.charges == (wild._private.spending.planned,)


def test_the_proximal_term_needs_no_privacy_and_comes_and_goes() -> None:
    learner = whole(steps=5, norm=1.0)

    def moved(mu: float) -> float:
        learner.mli_set_training_options(TrainingOptions(proximal_mu=mu))
        return sum(float(np.abs(each).sum()) for each in step_of(learner))

    free, near, nearer, again, near_again = (moved(mu) for mu in (0.0, 0.5, 0.9, 0.0, 0.5))
    assert nearer < near < 0.9 * free
    assert (again, near_again) == (pytest.approx(free, rel=1e-4), pytest.approx(near, rel=1e-4))
