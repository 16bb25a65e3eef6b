"""Models, data and looks at all that a Keras learner may not change: what the cases share."""

import random

import keras
import numpy as np
import tensorflow as tf

from collective_learner import KerasLearner
from collective_learner.learners import keras_state
from collective_learner.mli import TrainingOptions, Weights

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(50, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
LAYERS = keras.layers


class Noisy(LAYERS.Layer):
    """Draws from every generator, in training and in scoring."""

    def call(self, x):
        return x + 1e-3 * keras.random.normal(keras.ops.shape(x)) + 1e-3 * tf.random.uniform([])


class Writing(keras.callbacks.Callback):
    """Draws from Python's and numpy's generators."""

    def on_epoch_begin(self, epoch, logs=None):
        random.random()
        np.random.random()


class Slices(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16], Y[16 * index : 16 * index + 16]


def batch_norm():
    return [LAYERS.Dense(8), LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Dropout(0.2)]


MODELS = {"batch norm": batch_norm, "noisy": lambda: [LAYERS.Dense(5), Noisy()], "linear": list}


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05),  # has state from the start
}


def build(model="batch norm", optimizer="adam", *, metrics=("accuracy",), dtype=None, loss=None, **compiling):
    keras.utils.set_random_seed(4)
    layers = MODELS[model]() if isinstance(model, str) else model
    network = keras.Sequential([keras.Input((6,)), *layers, LAYERS.Dense(3, dtype=dtype)])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss, metrics=[*metrics], jit_compile=False, **compiling)
    return network


def make(model="batch norm", optimizer="adam", *, data=(X, Y), votes=(X, Y), **options):
    network = model if isinstance(model, keras.Model) else build(model, optimizer)
    options = {"model_fit_kwargs": {"batch_size": 16, "callbacks": [Writing()]}, **options}
    return KerasLearner(network, data, votes, (X, Y), **options)


def everything(learner) -> dict:
    model = learner.model
    return {
        "variables": [keras.ops.convert_to_numpy(each).tobytes() for each in model.variables],
        "metrics": [keras.ops.convert_to_numpy(each).tobytes() for each in model.metrics_variables],
        "optimizer": [keras.ops.convert_to_numpy(each).tobytes() for each in model.optimizer.variables],
        "identity": [id(each) for each in (*model.variables, *model.optimizer.variables)],
        "trained": [each.trainable for each in model.layers],
        "python": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "keras": keras.ops.convert_to_numpy(keras_state._global_generator().state).tobytes(),
        "tensorflow": (keras_state._tensorflow_context()._seed, keras_state._tensorflow_context()._rng.getstate()),
        "vote_score": learner.vote_score,
    }


def as_bytes(weights: Weights) -> list[bytes]:
    return [array.tobytes() for array in weights.weights]


def trained(learner, **options) -> Weights:
    learner.mli_set_training_options(TrainingOptions(**options))
    return learner.mli_propose_weights()
