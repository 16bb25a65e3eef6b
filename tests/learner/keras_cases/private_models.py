"""Private learners with Keras, small enough to be followed by hand: what the audits share."""

import math

import keras
import numpy as np
import tensorflow as tf
from contract import NO_NOISE, X, Y, private
from contract import moved_by as step_of

from collective_learner import KerasLearner

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LAYERS = keras.layers


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
