"""KerasLearner with FedProx, on one device and on two, agrees with a reference."""

import math

import keras
import numpy as np
import pytest

from collective_learner import KerasLearner
from collective_learner.learners.keras_devices import model_scope, scope_of
from collective_learner.mli import Weights

from .models import (
    LAYERS,
    OPTIMIZERS,
    Slices,
    X,
    Y,
    as_bytes,
    build,
    everything,
    make,
    trained,
)


def test_the_proximal_term_pulls_the_harder_the_nearer() -> None:
    learner = make("batch norm", OPTIMIZERS["adam"](), model_fit_kwargs={"batch_size": 16, "epochs": 5})
    own = learner.mli_get_current_weights().weights
    places = [index for index, each in enumerate(learner.model.weights) if each.trainable]

    def distance(weights: Weights) -> float:
        return math.sqrt(sum(((weights.weights[place] - own[place]) ** 2).sum() for place in places))

    plain = trained(learner)
    before = everything(learner)
    distances = [distance(plain), *(distance(trained(learner, proximal_mu=mu)) for mu in (0.1, 1, 10))]
    assert everything(learner) == before
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]
    assert as_bytes(trained(learner)) == as_bytes(plain)


def reference(w, b, *, mu: float, steps: int):
    """Full-batch softmax regression with a proximal term, in numpy."""
    w0, b0, one_hot = w.copy(), b.copy(), np.eye(3)[Y]
    for _ in range(steps):
        logits = X @ w + b
        chances = np.exp(logits - logits.max(1, keepdims=True))
        error = (chances / chances.sum(1, keepdims=True) - one_hot) / len(X)
        w, b = w - 0.3 * (X.T @ error + mu * (w - w0)), b - 0.3 * (error.sum(0) + mu * (b - b0))
    return w, b


@pytest.mark.parametrize(("devices", "mu"), [(None, 0.0), (None, 0.7), (["CPU:0", "CPU:1"], 0.7)])
def test_training_agrees_with_a_reference_on_one_device_and_on_two(devices, mu: float) -> None:
    with model_scope(devices):
        network = build("linear", keras.optimizers.SGD(0.3))
    learner = make(network, model_fit_kwargs={"batch_size": 50, "epochs": 4})
    replicas = network.distribute_strategy.num_replicas_in_sync
    assert replicas == (2 if devices else 1)
    before = everything(learner)
    expected = reference(*learner.mli_get_current_weights().weights, mu=mu, steps=4)
    proposed = trained(learner, proximal_mu=mu)
    for array, wanted in zip(proposed.weights, expected, strict=True):
        assert array == pytest.approx(wanted, abs=1e-5)
    assert everything(learner) == before
    verdict = learner.mli_test_weights(proposed)
    learner.mli_accept_weights(proposed)
    assert verdict.vote
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
    if devices:  # every replica holds them
        with scope_of(network):
            for variable, array in zip(network.weights, proposed.weights, strict=True):
                for local in network.distribute_strategy.experimental_local_results(variable.value):
                    assert local.numpy().tobytes() == array.tobytes()


def test_two_devices_train_a_batch_normalised_model_with_its_dropout() -> None:
    with model_scope(["CPU:0", "CPU:1"]):
        network = build()
    learner = make(network, data=Slices())
    before = everything(learner)
    proposed = trained(learner, proximal_mu=0.1)
    assert everything(learner) == before
    assert learner.mli_test_weights(proposed).vote_score != learner.vote_score


def test_a_sparse_gradient_is_pulled_too() -> None:
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [keras.Input((3,), dtype="int32"), LAYERS.Embedding(9, 4), LAYERS.Flatten(), LAYERS.Dense(3)]
    )
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    data = (np.arange(18).reshape(6, 3) % 9, np.arange(6) % 3)
    learner = KerasLearner(network, data, data, model_fit_kwargs={"epochs": 6})
    own = learner.mli_get_current_weights().weights[0]
    free, pulled = (np.abs(trained(learner, proximal_mu=mu).weights[0] - own).sum() for mu in (0.0, 5.0))
    assert 0 < pulled < free
