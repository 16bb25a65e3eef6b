"""The audit of a private training with Keras: what the accountant assumes is what is done."""

import logging
import math
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from collective_learner import KerasLearner
from collective_learner.environment import STATE_DIR
from collective_learner.learners.keras_devices import model_scope
from collective_learner.mli import (
    DiffPrivConfig,
    ErrorCodes,
    TrainingDivergedError,
    TrainingOptions,
    TrainingStoppedError,
    Weights,
)
from collective_learner.privacy import keras_dp
from collective_learner.privacy.accountant import Charge, epsilon_of
from collective_learner.privacy.keras_dp import PrivateTraining
from collective_learner.privacy.keras_examples import DrawnExamples
from collective_learner.privacy.ledger import LedgerError

from .learner_cases import everything

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(60, 6)).astype(np.float32)
Y = np.arange(60) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LAYERS = keras.layers
NO_NOISE, ANY = 1e-9, 1e300


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


@pytest.fixture
def seeded(monkeypatch):
    """Makes private randomness the same every time, for statistics."""
    seeds = np.random.default_rng(3)
    monkeypatch.setattr(keras_dp.os, "urandom", seeds.bytes)
    monkeypatch.setattr(keras_dp.secrets, "randbits", lambda bits: int(seeds.integers(1 << 62)))


@pytest.fixture(params=["one by one", "together"])
def way(request, monkeypatch):
    """Computes gradients as on a CPU, and as on a GPU."""
    monkeypatch.setattr(keras_dp, "_gains_together", lambda: request.param == "together")


def private(*, noise: float = 1.0, target: float = ANY, norm: float = 1.0) -> DiffPrivConfig:
    return DiffPrivConfig(target_epsilon=target, target_delta=1e-5, max_grad_norm=norm, noise_multiplier=noise)


def build(*layers, shape=(6,), dtype=None, loss=LOSS, optimizer=None, kind=keras.Sequential):
    keras.utils.set_random_seed(4)
    layers = layers or (LAYERS.Dense(8, activation="tanh"), LAYERS.Dense(3))
    network = kind([keras.Input(shape, dtype=dtype), *layers])
    network.compile(
        optimizer or keras.optimizers.SGD(1.0), loss, run_eagerly=True
    )  # scoring; a step of ours is compiled
    return network


def make(network=None, *, config, data=(X, Y), batch_size: int = 10, steps: int | None = None, fit=None, **options):
    fit = {"batch_size": batch_size, **({} if steps is None else {"steps_per_epoch": steps}), **(fit or {})}
    network = network or build()
    return KerasLearner(network, data, data, model_fit_kwargs=fit, diff_priv_config=config, **options)


def whole(network=None, *, data=(X, Y), norm: float = 1.0, noise: float = NO_NOISE, steps: int = 1, **options):
    """Make a learner whose batches are all examples, each with probability 1."""
    config = private(noise=noise, norm=norm)
    return make(network, config=config, data=data, batch_size=len(data[1]), steps=steps, **options)


def step_of(learner) -> list[np.ndarray]:
    """By how much a proposal differs from what is held."""
    held, proposed = learner.mli_get_current_weights().weights, learner.mli_propose_weights().weights
    return [one - other for one, other in zip(held, proposed, strict=True)]


def by_hand(network, norm: float, data=(X, Y), *, loss=None) -> list[np.ndarray]:
    """Clip the gradient of each example, one at a time, as Keras computes it, and average; of what is trained."""
    total = [np.zeros(each.shape) for each in network.trainable_variables]
    for x, y in zip(*data, strict=True):
        with tf.GradientTape() as tape:
            outputs = network(x[None], training=True)
            value = (loss or network.loss)(y[None], outputs)
            value = tf.cast(value, tf.float32) + sum(network.losses) - regularization(network)
        found = tape.gradient(value, [each.value for each in network.trainable_variables])
        found = [tf.convert_to_tensor(each).numpy().astype(float) for each in found]
        length = math.sqrt(sum((each**2).sum() for each in found))
        total = [one + min(1.0, norm / max(length, 1e-30)) * other for one, other in zip(total, found, strict=True)]
    return [each / len(data[1]) for each in total]


def regularization(network):
    return sum(each.regularizer(each) for each in network.trainable_variables if each.regularizer is not None)


def trained(network) -> list[int]:
    return [place for place, each in enumerate(network.weights) if each.trainable]


def assert_stepped(learner, expected: list[np.ndarray]) -> None:
    moved = step_of(learner)
    places = trained(learner.model)
    for place, step in enumerate(moved):
        wanted = expected[places.index(place)] if place in places else np.zeros_like(step)
        np.testing.assert_allclose(step, wanted, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("norm", [0.05, 0.7])
def test_every_example_is_clipped_by_itself(norm: float, way) -> None:
    learner = whole(norm=norm)
    assert_stepped(learner, by_hand(learner.model, norm))


class Halved(keras.Sequential):
    """Has a loss of its own."""

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        return 0.5 * keras.ops.mean(LOSS(y, y_pred)) + keras.ops.sum(self.losses)


def test_losses_of_ones_own_are_taken_of_each_example() -> None:
    def odd(y, outputs):
        return keras.ops.mean(keras.ops.square(outputs), axis=-1) * keras.ops.cast(y, "float32")

    learner = whole(build(loss=odd), norm=0.3)
    assert_stepped(learner, by_hand(learner.model, 0.3))
    learner = whole(build(kind=Halved), norm=0.2)
    assert_stepped(learner, by_hand(learner.model, 0.2, loss=lambda y, outputs: 0.5 * LOSS(y, outputs)))


IMAGES = _RNG.normal(size=(24, 8, 8, 2)).astype(np.float32), np.arange(24) % 3
WORDS = _RNG.integers(0, 9, (24, 7)), np.arange(24) % 3


class Attention(LAYERS.Layer):
    """Lets words look at each other."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = LAYERS.MultiHeadAttention(2, 3)

    def call(self, x):
        return self.attention(x, x)


OTHERS = {
    "conv": lambda: (
        IMAGES,
        [LAYERS.Conv2D(4, 3, activation="relu"), LAYERS.GroupNormalization(2), LAYERS.MaxPooling2D(), LAYERS.Flatten()],
    ),
    "separable": lambda: (
        IMAGES,
        [LAYERS.SeparableConv2D(4, 3), LAYERS.GlobalAveragePooling2D(), LAYERS.LayerNormalization()],
    ),
    "frozen": lambda: (IMAGES, [LAYERS.Flatten(), LAYERS.BatchNormalization(trainable=False)]),
    "partly": lambda: (IMAGES, [LAYERS.Dense(8), LAYERS.Flatten(), LAYERS.Dense(5, trainable=False)]),
    "embedding": lambda: (WORDS, [LAYERS.Embedding(9, 5), LAYERS.GlobalAveragePooling1D()]),
    "activity": lambda: (IMAGES, [LAYERS.Flatten(), LAYERS.Dense(8, activity_regularizer="l2")]),
    "lstm": lambda: (WORDS, [LAYERS.Embedding(9, 5), LAYERS.LSTM(4)]),
    "attention": lambda: (WORDS, [LAYERS.Embedding(9, 6), Attention(), LAYERS.Flatten()]),
}


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "lstm"])
def test_other_layers_are_clipped_as_by_hand(name: str) -> None:
    data, layers = OTHERS[name]()
    network = build(*layers, LAYERS.Dense(3), shape=data[0].shape[1:], dtype=data[0].dtype.name)
    learner = whole(network, data=data, norm=0.3)
    assert_stepped(learner, by_hand(network, 0.3, data))


@pytest.mark.parametrize("name", ["conv", "embedding", "lstm"])
def test_together_they_are_too_where_that_is_possible_else_one_by_one(name: str, monkeypatch) -> None:
    """Not attention, on a CPU: TensorFlow's kernels for it write past their memory."""
    monkeypatch.setattr(keras_dp, "_gains_together", lambda: True)
    data, layers = OTHERS[name]()
    network = build(*layers, LAYERS.Dense(3), shape=data[0].shape[1:], dtype=data[0].dtype.name)
    learner = whole(network, data=data, norm=0.3)
    assert_stepped(learner, by_hand(network, 0.3, data))


def test_inputs_may_be_nests_and_examples_have_weights() -> None:
    keras.utils.set_random_seed(1)
    one, two = keras.Input((4,), name="one"), keras.Input((2,), name="two")
    network = keras.Model({"one": one, "two": two}, LAYERS.Dense(3)(LAYERS.Concatenate()([one, two])))
    network.compile(keras.optimizers.SGD(1.0), LOSS, jit_compile=False)
    weights = np.linspace(0.1, 2, 60)
    inputs = {"one": X[:, :4].astype(np.float64), "two": X[:, 4:]}
    learner = whole(network, data=(inputs, Y, weights), norm=0.3)
    kernel = learner.model.get_weights()[0]
    total = np.zeros((7, 3))
    for x, y, weight in zip(X, Y, weights, strict=True):
        chances = np.exp(x @ kernel) / np.exp(x @ kernel).sum()
        gradient = weight * np.outer([*x, 1], chances - np.eye(3)[y])
        total += min(1, 0.3 / np.linalg.norm(gradient)) * gradient / 60
    assert_stepped(learner, [total[:6], total[6]])


def test_without_clipping_and_noise_it_is_ordinary_training() -> None:
    """With whatever an optimizer does besides: schedules, decay, averages, constraints; and with regularizers."""

    def network():
        keras.utils.set_random_seed(4)  # from which layers get their seeds when they are made
        return build(
            LAYERS.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.3)),
            LAYERS.Dense(3, kernel_constraint=keras.constraints.MaxNorm(0.9), bias_regularizer="l1"),
            optimizer=keras.optimizers.AdamW(
                keras.optimizers.schedules.ExponentialDecay(0.03, 2, 0.9), weight_decay=0.1, use_ema=True
            ),
        )

    bare = network()
    bare.fit(X, Y, batch_size=60, epochs=6, verbose=0)
    proposed = whole(network(), norm=1e3, steps=3, fit={"epochs": 2}).mli_propose_weights()
    for array, expected in zip(proposed.weights, bare.get_weights(), strict=True):
        np.testing.assert_allclose(array, expected, atol=2e-5)


def test_regularizers_are_outside_of_the_clipping() -> None:
    network = build(LAYERS.Dense(3, kernel_regularizer=keras.regularizers.L2(50.0)))
    learner = whole(network, norm=0.1)
    expected = by_hand(network, 0.1)
    kernel = network.get_weights()[0]
    np.testing.assert_allclose(step_of(learner)[0], expected[0] + 100 * kernel, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("extreme", [1e6, math.inf, math.nan])
def test_one_example_moves_a_training_by_no_more_than_the_norm(extreme: float, way) -> None:
    """However extreme it is: the same training with and without it, and nothing else to tell them apart."""
    strange = np.full((1, 6), extreme, dtype=np.float32)
    wrong = np.argmin(build(LAYERS.Dense(3)).predict(np.nan_to_num(strange), verbose=0), axis=1)
    outlier = np.concatenate([X, strange]), np.concatenate([Y, wrong])
    with_it = whole(build(LAYERS.Dense(3)), data=outlier, norm=0.5)
    without = whole(build(LAYERS.Dense(3)), norm=0.5)
    one, other = step_of(with_it), step_of(without)
    moved = math.sqrt(sum(((61 * one[at] - 60 * other[at]) ** 2).sum() for at in range(2)))
    assert moved == pytest.approx(0.5 if extreme < 1e10 else 0.0, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("noise", "norm", "batch_size"), [(1.3, 0.5, 10), (4.0, 2.0, 60)])
def test_the_noise_has_the_deviation_that_was_promised(seeded, noise: float, norm: float, batch_size: int) -> None:
    def drawn_in(steps: int) -> np.ndarray:
        network = build(LAYERS.Dense(5000), loss=lambda y, outputs: 0.0 * keras.ops.sum(outputs, axis=-1))
        learner = make(network, config=private(noise=noise, norm=norm), batch_size=batch_size, steps=steps)
        return np.concatenate([step.ravel() for step in step_of(learner)])

    drawn, promised = drawn_in(1), noise * norm / batch_size
    assert len(drawn) == 35000
    assert stats.kstest(drawn / promised, "norm").pvalue > 0.01
    assert abs(drawn.std() / promised - 1) < 5 / math.sqrt(2 * len(drawn))
    # And independent from step to step: deviations of sums grow with the root.
    assert abs(drawn_in(9).std() / (3 * promised) - 1) < 5 / math.sqrt(2 * len(drawn))


@pytest.fixture
def batches(monkeypatch) -> list[np.ndarray]:
    """The places of all examples that were drawn, batch by batch, as long as a batch is one piece."""
    seen: list[np.ndarray] = []
    own_at, own_step = DrawnExamples.at, PrivateTraining._stepping

    def at(self, places):
        if isinstance(places, np.ndarray) and len(seen):
            seen[-1] = np.concatenate([seen[-1], places])
        return own_at(self, places)

    def stepping(self):
        step = own_step(self)
        seen.append(np.zeros(0, int))
        return lambda total: (step(total), seen.append(np.zeros(0, int)))

    monkeypatch.setattr(DrawnExamples, "at", at)
    monkeypatch.setattr(PrivateTraining, "_stepping", stepping)
    return seen


def test_empty_batches_are_steps_that_spend_and_add_noise(seeded, batches) -> None:
    learner = make(config=private(noise=2.0), batch_size=1, steps=200)
    learner.mli_propose_weights()
    sizes = [len(batch) for batch in batches[:-1]]
    assert len(sizes) == 200 and sizes.count(0) > 40
    (charge,) = learner._private.spending.ledger.charges
    assert (charge.steps, charge.noise_multiplier) == (200, 2.0)
    # A training of nothing but an empty batch moves the weights by noise, and is charged.
    for _ in range(50):
        batches.clear()
        learner._private.spending.planned = Charge(noise_multiplier=2.0, sample_rate=charge.sample_rate, steps=1)
        step = step_of(learner)
        if len(batches[0]) == 0:
            break
    assert len(batches[0]) == 0
    assert all(np.abs(each).min() > 0 for each in step)
    assert learner._private.spending.ledger.charges[0].steps > 200


def test_batches_are_drawn_by_poisson_sampling_at_the_rate_that_is_charged(seeded, batches) -> None:
    count, steps = 500, 200
    data = np.arange(count, dtype=np.float32)[:, None], np.zeros(count, np.int64)
    learner = make(build(LAYERS.Dense(2), shape=(1,)), config=private(noise=5.0), data=data, batch_size=50, steps=steps)
    learner.mli_propose_weights()
    seen = batches[:-1]
    rate = learner._private.spending.planned.sample_rate
    assert 0.1 <= rate < 0.1 + 2**-52 and rate * 2**53 == int(rate * 2**53)
    assert len(seen) == steps and all(len(set(batch)) == len(batch) for batch in seen)
    sizes = np.array([len(batch) for batch in seen])
    # Sizes vary as coin tosses do, and do not make up for one another.
    assert abs(sizes.mean() - 50) < 5 * math.sqrt(45 / steps)
    assert abs(sizes.var() / 45 - 1) < 5 * math.sqrt(2 / steps)
    times = np.bincount(np.concatenate(seen), minlength=count)
    assert stats.chisquare(times).pvalue > 0.01 and abs(times.var() / (steps * 0.09) - 1) < 5 * math.sqrt(2 / count)


def test_what_is_counted_does_not_tell_who_was_drawn() -> None:
    learner = make(config=private(), batch_size=10, steps=7)
    told = []
    learner._private.train(go_on=lambda: None, count=told.append)
    assert told == [10] * 7


def test_in_pieces_the_sum_is_the_same_and_every_example_is_in_it() -> None:
    expected = step_of(whole(norm=0.3))
    for parts in (4, 60):
        for step, wanted in zip(step_of(whole(norm=0.3, num_microbatches=parts)), expected, strict=True):
            np.testing.assert_allclose(step, wanted, rtol=1e-4, atol=1e-6)


def test_gradients_that_are_computed_together_are_held_within_bounds(monkeypatch) -> None:
    monkeypatch.setattr(keras_dp, "_gains_together", lambda: True)
    monkeypatch.setattr(keras_dp, "_HELD", 8 * 83 * 7)
    learner = make(config=private(), batch_size=60, steps=2)
    sizes, numbers = [], []
    own = learner._private._sum

    def noted(examples, seen):
        sizes.append(len(examples["y"]))
        numbers.extend(range(seen, seen + sizes[-1]))
        return own(examples, seen)

    learner._private._sum = noted
    learner.mli_propose_weights()
    assert sum(sizes) == 120 and max(sizes) <= 7
    assert numbers == list(range(120))  # from which each gets its dropout


def test_randomness_is_the_systems_and_nobody_elses(batches) -> None:
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


def test_each_example_has_dropout_of_its_own(way) -> None:
    network = build(LAYERS.Dropout(0.5), LAYERS.Dense(2, use_bias=False), loss="mse")
    same = np.ones((40, 6), np.float32), np.full((40, 2), 1e3, np.float32)
    learner = whole(network, data=same, norm=1e-3)
    found = learner._private._sum(learner._private._examples.at(np.arange(40)), tf.constant(0, tf.int64))[0].numpy()
    # Rows are inputs: each was dropped for some examples and not for others, and not for all at once.
    share = np.abs(found).sum(axis=1) / np.abs(found).sum()
    assert (share > 0.05).all() and len(np.unique(np.round(share, 3))) > 2


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


def test_a_rejected_proposal_is_charged_and_the_budget_ends_before_it_is_passed() -> None:
    spent_by_one = epsilon_of([make(config=private())._private.spending.planned], delta=1e-5)
    learner = make(config=private(target=2 * spent_by_one))
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
    current = learner.mli_get_current_weights().weights
    assert all(one.tobytes() == two.tobytes() for one, two in zip(proposal.weights, current, strict=True))
    charges = learner._private.spending.ledger.charges
    assert learner.mli_propose_weights().training_summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
    assert learner._private.spending.ledger.charges == charges
    assert epsilon_of([*charges, learner._private.spending.planned], delta=1e-5) > 2 * spent_by_one


def test_a_budget_too_small_for_one_training_spends_nothing() -> None:
    summary = make(config=private(target=0.01)).mli_propose_weights().training_summary
    assert summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
    assert (summary.dp_budget.consumed_epsilon, summary.dp_budget.consumed_delta) == (0, 0)


def test_what_a_training_will_spend_is_told_before_it(caplog) -> None:
    with caplog.at_level(logging.INFO, "collective_learner.privacy"):
        learner = make(config=private(noise=1.5), fit={"epochs": 2})
    planned = learner._private.spending.planned
    assert planned == Charge(noise_multiplier=1.5, sample_rate=planned.sample_rate, steps=12)
    assert f"makes it {epsilon_of([planned], delta=1e-5):.4g}" in caplog.text


def test_a_training_that_is_stopped_has_spent_what_it_did() -> None:
    learner = make(config=private(), steps=10)
    own, done = learner._private._stepping, []

    def stepping():
        step = own()
        return lambda total: (step(total), done.append(1), len(done) == 3 and learner.mli_stop_training())

    learner._private._stepping = stepping
    before = everything(learner)
    with pytest.raises(TrainingStoppedError):
        learner.mli_propose_weights()
    assert everything(learner) == before
    ledger = learner._private.spending.ledger
    assert [charge.steps for charge in ledger.charges] == [len(done)] == [3]
    consumed = learner.mli_propose_weights().training_summary.dp_budget.consumed_epsilon
    assert consumed == pytest.approx(epsilon_of(ledger.charges, delta=1e-5))
    assert [charge.steps for charge in ledger.charges] == [13]


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


def test_a_ledger_outlives_its_learner_and_refuses_other_data(tmp_path) -> None:
    learner = make(config=private(), privacy_folder=tmp_path)
    first = learner.mli_propose_weights().training_summary.dp_budget.consumed_epsilon
    del learner
    # Another noise is another charge on the same data.
    again = make(config=private(noise=2.0), privacy_folder=tmp_path)
    assert again._private.spending.budget().consumed_epsilon == first
    assert again.mli_propose_weights().training_summary.dp_budget.consumed_epsilon > first
    with pytest.raises(LedgerError, match=r"about other data \(60 examples, .*, not 59 examples"):
        make(config=private(), data=(X[:59], Y[:59]), privacy_folder=tmp_path)
    with pytest.raises(LedgerError, match="about other data"):
        make(config=private(), data=(X + 1e-3, Y), privacy_folder=tmp_path)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_weights_in_32_and_64_bits_are_trained_at_any_precision(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        network = build(LAYERS.Dense(8, activation="tanh"), LAYERS.Dense(3, dtype="float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    learner = whole(network, norm=0.1)
    length = math.sqrt(sum(float((each**2).sum()) for each in step_of(learner)))
    assert 0.01 < length <= 0.1 * (1 + 1e-6)


class Mixing(LAYERS.Layer):
    """Takes the mean of a batch away."""

    def call(self, x):
        return x - keras.ops.mean(x, axis=0)


class Counting(LAYERS.Layer):
    """Keeps what it has seen."""

    def build(self, shape) -> None:
        self.seen = self.add_weight(shape=(6,), initializer="zeros", trainable=False, name="seen")

    def call(self, x):
        self.seen.assign_add(keras.ops.sum(x, axis=0))
        return x


class Stepping(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def in_policy(policy: str, loss_scaling: bool = False):
    keras.config.set_dtype_policy(policy)
    try:
        return build(optimizer="adam" if loss_scaling else None)
    finally:
        keras.config.set_dtype_policy("float32")


def adapted():
    layer = LAYERS.Normalization(name="scaling")
    layer.adapt(X)
    return build(layer, LAYERS.Dense(3))


def on_two():
    with model_scope(["CPU:0", "CPU:1"]):
        return build()


REFUSED = [
    (
        lambda: build(LAYERS.Dense(4), LAYERS.BatchNormalization(name="norm"), LAYERS.Dense(3)),
        "'norm' is BatchNormalization, .* use GroupNormalization or LayerNormalization",
    ),
    (lambda: build(keras.Sequential([LAYERS.BatchNormalization(name="inner")]), LAYERS.Dense(3)), "'inner' is Batch"),
    (lambda: build(LAYERS.Dense(4), Mixing(name="mixing"), LAYERS.Dense(3)), "'mixing' mixes the examples"),
    (lambda: build(LAYERS.Dense(4), LAYERS.Softmax(axis=0, name="over"), LAYERS.Dense(3)), "'over' mixes the examples"),
    (lambda: build(Counting(), LAYERS.Dense(3)), "seen' changes as the model is trained, without noise"),
    (lambda: build(LAYERS.SpectralNormalization(LAYERS.Dense(3))), "' changes as the model is trained, without noise"),
    (adapted, "'scaling' is Normalization, which holds statistics of data"),
    (lambda: in_policy("bfloat16"), "kernel' has type bfloat16"),
    (lambda: in_policy("mixed_float16", loss_scaling=True), "optimizer: LossScaleOptimizer scales the loss"),
    (lambda: build(optimizer=keras.optimizers.SGD(loss_scale_factor=2.0)), "optimizer: SGD scales the loss"),
    (lambda: build(kind=Stepping), "model: it has a train_step of its own"),
    (lambda: build(LAYERS.Dense(3, trainable=False)), "model: it has no weight that is trained"),
    (on_two, "model: it is on 2 devices"),
]


def refused(network=None, *, config=None, data=(X, Y), fit=None, num_microbatches=None) -> None:
    options = {"batch_size": 10, **(fit or {})}
    PrivateTraining(
        network or build(), data, config or private(), options=options, num_microbatches=num_microbatches, folder=None
    )


@pytest.mark.parametrize(("network", "named"), REFUSED, ids=[named[:30] for _, named in REFUSED])
def test_what_breaks_privacy_by_example_is_refused_by_name(network, named: str) -> None:
    network = network()
    with pytest.raises(ValueError, match=named):
        refused(network)
    # And nothing of the looking is left.
    assert not any("call" in vars(layer) for layer in network._flatten_layers())


def test_a_model_whose_trained_weights_change_later_is_refused() -> None:
    network = build()
    learner = make(network, config=private())
    network.layers[0].trainable = False
    with pytest.raises(ValueError, match="model: other weights are trained than when the learner was made"):
        learner.mli_propose_weights()


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return X[10 * index : 10 * index + 10], Y[10 * index : 10 * index + 10]


REFUSED_OPTIONS = [
    ({"data": Batches()}, "train_loader: Batches gives batches; .* arrays"),
    ({"data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)}, "train_loader: .*Dataset gives batches"),
    ({"data": (X[:50], Y)}, "train_loader: arrays of 50 and 60 examples"),
    ({"data": (X, np.array([None] * 60))}, "train_loader: object of shape"),
    ({"fit": {"callbacks": []}}, "model_fit_kwargs: 'callbacks', which diff_priv_config does not allow; allowed are"),
    ({"fit": {"class_weight": {0: 2.0}}}, "model_fit_kwargs: 'class_weight'"),
    ({"fit": {"validation_split": 0.2}}, "model_fit_kwargs: 'validation_split'"),
    ({"fit": {"epochs": 0}}, "epochs: 0, a whole number of at least 1"),
    ({"fit": {"batch_size": 0.5}}, "batch_size: 0.5, a whole number"),
    ({"num_microbatches": 0}, "num_microbatches: 0"),
    ({"config": {"target_epsilon": 1}}, "diff_priv_config: .*, a DiffPrivConfig is needed"),
]


@pytest.mark.parametrize(("options", "named"), REFUSED_OPTIONS, ids=[named[:40] for _, named in REFUSED_OPTIONS])
def test_data_and_options_that_break_it_are_refused(options, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        refused(**options)


def test_it_needs_no_other_framework_and_no_library_of_accountants() -> None:
    make(config=private()).mli_propose_weights()
    assert {"torch", "opacus", "dp_accounting"} & {name.partition(".")[0] for name in sys.modules} == set()


def test_a_pydataset_that_has_its_arrays_is_drawn_from() -> None:
    class Own(Batches):
        arrays, batch_size = (X, Y), 10

    learner = KerasLearner(build(), Own(), (X, Y), diff_priv_config=private(), model_fit_kwargs={"epochs": 2})
    assert learner._private.spending.planned.steps == 12
    assert isinstance(learner.mli_propose_weights(), Weights)
