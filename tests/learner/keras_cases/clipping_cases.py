"""The audit of a private training with Keras: every example's gradient is clipped by itself, in any model."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import X, Y, private

from collective_learner.environment import STATE_DIR
from collective_learner.privacy import keras_dp

from .private_models import LAYERS, LOSS, assert_stepped, build, by_hand, make, step_of, whole


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


@pytest.fixture(params=["one by one", "together"])
def way(request, monkeypatch):
    """Computes gradients as on a CPU, and as on a GPU."""
    monkeypatch.setattr(keras_dp, "_gains_together", lambda: request.param == "together")


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


_RNG = np.random.default_rng(0)
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
                keras.optimizers.schedules.ExponentialDecay(0.03, 2, 0.9),
                weight_decay=0.1,
                use_ema=True,
                epsilon=1e-3,  # with less, a gradient near zero is divided by itself: rounding becomes steps
            ),
        )

    bare = network()
    bare.fit(X, Y, batch_size=60, epochs=6, verbose=0)
    proposed = whole(network(), norm=1e3, steps=3, fit={"epochs": 2}).mli_propose_weights()
    for array, expected in zip(proposed.weights, bare.get_weights(), strict=True):
        np.testing.assert_allclose(array, expected, atol=2e-6)


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


def test_each_example_has_dropout_of_its_own(way) -> None:
    network = build(LAYERS.Dropout(0.5), LAYERS.Dense(2, use_bias=False), loss="mse")
    same = np.ones((40, 6), np.float32), np.full((40, 2), 1e3, np.float32)
    learner = whole(network, data=same, norm=1e-3)
    found = learner._private._sum(learner._private._examples.at(np.arange(40)), tf.constant(0, tf.int64))[0].numpy()
    # Rows are inputs: each was dropped for some examples and not for others, and not for all at once.
    share = np.abs(found).sum(axis=1) / np.abs(found).sum()
    assert (share > 0.05).all() and len(np.unique(np.round(share, 3))) > 2


def clipped_step(policy: str) -> list[np.ndarray]:
    keras.config.set_dtype_policy(policy)
    try:
        network = build(LAYERS.Dense(8, activation="tanh"), LAYERS.Dense(3, dtype="float32"))
    finally:
        keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(4)
    network.set_weights([rng.normal(scale=0.4, size=each.shape) for each in network.get_weights()])
    return [np.asarray(each, np.float64) for each in step_of(whole(network, norm=0.1))]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_weights_in_32_and_64_bits_are_trained_at_any_precision(policy: str) -> None:
    step, exact = clipped_step(policy), clipped_step("float32")
    length, wanted, apart = (
        math.sqrt(sum(float((each**2).sum()) for each in given))
        for given in (step, exact, [one - other for one, other in zip(step, exact, strict=True)])
    )
    assert 0 < length <= 0.1 * (1 + 1e-6)
    assert apart < (0.05 if policy == "mixed_bfloat16" else 1e-5) * wanted
