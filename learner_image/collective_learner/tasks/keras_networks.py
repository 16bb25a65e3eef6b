"""The Keras side of the built-in tasks: small networks, and learners around them.

Apart from the modules that register the tasks, so that knowing their names does not import Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from collective_learner.learners.checks import number, whole_number
from collective_learner.learners.keras import KerasLearner
from collective_learner.learners.keras_devices import jit_compile, model_scope
from collective_learner.learners.keras_state import same_randomness

if TYPE_CHECKING:
    from collective_learner.mli import Array, DiffPrivConfig
    from collective_learner.tasks.data import ClassificationData, Examples
    from collective_learner.tasks.files import ImageData

_SCORING_BATCH = 256
_POLICIES = {"float32": "float32", "bf16": "mixed_bfloat16"}

Layers = Callable[[Any], Any]
"""From a model's input to its last hidden layer."""


class ShuffledBatches(keras.utils.PyDataset):
    """So many full batches of examples in random order, all of them once before any comes again.

    The order is drawn at the start of each epoch from numpy's generator, which the learner seeds: so a training is the
    same again. A batch is always full, so that no second shape has to be compiled.
    """

    def __init__(self, examples: Examples, *, batch_size: int, batches: int) -> None:
        super().__init__()
        self.arrays = examples  # by this name a private training finds them, and draws them by itself
        self.batch_size = batch_size
        self._batches = batches
        self._order = np.arange(batches * batch_size) % self.examples

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.arrays.y)

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self._batches

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return one batch."""
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.arrays.x[rows], self.arrays.y[rows]

    def on_epoch_begin(self) -> None:
        """Draw a new order."""
        passes = math.ceil(self._batches * self.batch_size / self.examples)
        self._order = np.concatenate([np.random.permutation(self.examples) for _ in range(passes)])


def digits_layers(x: Any) -> Any:
    """Two convolutions over 8 x 8 pixels, given flat; as the digits' network in PyTorch."""
    x = layers.Reshape((8, 8, 1))(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    return layers.Dense(64, activation="relu")(x)


def breast_cancer_layers(x: Any) -> Any:
    """One hidden layer over 30 measurements."""
    return layers.Dense(16, activation="relu")(x)


def mnist_layers(x: Any) -> Any:
    """Two convolutions and a hidden layer."""
    x = layers.Rescaling(1 / 255)(x)
    for filters in (16, 32):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu")(x))
    return layers.Dense(64, activation="relu")(layers.Flatten()(x))


def cifar_layers(x: Any) -> Any:
    """Two pairs of convolutions, a hidden layer, and dropout after each."""
    x = layers.Rescaling(1 / 255)(x)
    for filters in (32, 64):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.Dropout(0.2)(layers.MaxPooling2D()(x))
    return layers.Dropout(0.3)(layers.Dense(128, activation="relu")(layers.Flatten()(x)))


def residual_layers(x: Any) -> Any:
    """Three residual blocks, batch-normalised, each half as wide and twice as deep as the one before.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = x if strides == 1 else layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([layers.BatchNormalization()(x), shortcut]))
    return layers.GlobalAveragePooling2D()(x)


def array_learner(
    body: Layers,
    data: ClassificationData,
    *,
    learning_rate: float,
    epochs: int,
    precision: str,
    seed: int,
    diff_priv_config: DiffPrivConfig | None,
) -> KerasLearner:
    """Build a learner that goes through all of its examples, so many times in a proposal."""
    return KerasLearner(
        _network(body, data, learning_rate=learning_rate, precision=precision, seed=seed),
        data.train,
        data.vote,
        data.test,
        model_fit_kwargs={"batch_size": data.batch_size, "epochs": whole_number("epochs", epochs, at_least=1)},
        model_evaluate_kwargs={"batch_size": _SCORING_BATCH},
        diff_priv_config=diff_priv_config,
        test_criterion="accuracy",
        seed=seed,
    )


def image_learner(
    body: Layers,
    data: ImageData,
    *,
    steps_per_epoch: int,
    vote_batches: int,
    learning_rate: float,
    precision: str,
    seed: int,
    diff_priv_config: DiffPrivConfig | None = None,
    num_microbatches: int | None = None,
) -> KerasLearner:
    """Build a learner that trains on so many batches in a proposal, and votes on the first so many of its vote set."""
    whole_number("steps_per_epoch", steps_per_epoch, at_least=1)
    most = whole_number("vote_batches", vote_batches, at_least=1) * data.batch_size
    return KerasLearner(
        _network(body, data, learning_rate=learning_rate, precision=precision, seed=seed),
        ShuffledBatches(data.train, batch_size=data.batch_size, batches=steps_per_epoch),
        (data.vote.x[:most], data.vote.y[:most]),
        (data.test.x[:most], data.test.y[:most]),
        model_fit_kwargs={"shuffle": False},  # it is shuffled already
        model_evaluate_kwargs={"batch_size": _SCORING_BATCH},
        diff_priv_config=diff_priv_config,
        num_microbatches=num_microbatches,
        test_criterion="accuracy",
        seed=seed,
    )


def _network(body: Layers, data: ClassificationData, *, learning_rate: float, precision: str, seed: int) -> Any:
    """Build and compile a network; its first weights come from `seed` alone, so that all learners start alike."""
    number("learning_rate", learning_rate, above=0)
    whole_number("seed", seed, at_least=0)
    if precision not in _POLICIES:
        raise ValueError(f"precision: {precision!r}, one of {', '.join(_POLICIES)} is needed")
    own = keras.config.dtype_policy()
    with same_randomness(), model_scope():
        keras.utils.set_random_seed(seed % 2**32)
        keras.config.set_dtype_policy(_POLICIES[precision])
        try:
            given = keras.Input(data.train.x.shape[1:])
            # The last layer is in float32 at any precision: a softmax needs its digits.
            network = keras.Model(given, layers.Dense(data.classes, dtype="float32")(body(given)))
        finally:
            keras.config.set_dtype_policy(own)
        network.compile(
            optimizer=keras.optimizers.Adam(learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=jit_compile(),
        )
    return network
