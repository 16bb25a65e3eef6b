"""What would break the promise of a private training with Keras is refused by name."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import X, Y, private

from collective_learner import KerasLearner
from collective_learner.environment import STATE_DIR
from collective_learner.learners.keras_devices import model_scope
from collective_learner.mli import Weights
from collective_learner.privacy.keras_dp import PrivateTraining

from .private_models import LAYERS, build, make


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


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
    ({"data": (X[:50], Y)}, "train_loader: x has 50, y has 60 examples"),
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
