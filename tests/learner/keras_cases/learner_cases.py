"""KerasLearner on TensorFlow: propose and test put everything back, and trainings repeat."""

import keras
import numpy as np
import pytest

from collective_learner import KerasLearner
from collective_learner.learners import keras_state
from collective_learner.mli import Weights

from .models import LAYERS, OPTIMIZERS, X, Y, as_bytes, build, everything, make, trained

CASES = [
    ("batch norm", "adam", True, True),
    ("batch norm", "adagrad", False, False),
    ("noisy", "momentum", True, False),
    ("noisy", "adagrad", False, True),
]


@pytest.mark.parametrize(("model", "optimizer", "reset", "warm"), CASES)
def test_propose_and_test_leave_everything_and_accept_changes_it(model, optimizer, reset, warm) -> None:
    network = build(model, OPTIMIZERS[optimizer]())
    if warm:
        network.fit(X, Y, verbose=0)
    learner = make(network, need_reset_optimizer=reset)
    for _ in range(2):
        before = everything(learner)
        proposed = learner.mli_propose_weights()
        assert everything(learner) == before
        verdict = learner.mli_test_weights(proposed)
        assert everything(learner) == before
        if model != "noisy":  # what TensorFlow's own operations draw inside a graph, nobody can put back
            assert as_bytes(learner.mli_propose_weights()) == as_bytes(proposed)
        learner.mli_accept_weights(proposed)
        assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
        assert learner.vote_score == verdict.vote_score
        if model != "noisy":
            assert not learner.mli_test_weights(proposed).vote  # equal is not better


def test_a_training_is_the_bare_one_with_a_fresh_optimizer() -> None:
    """Round after round the weights are those of `fit` in a loop, with an optimizer that starts anew."""

    def adam() -> keras.optimizers.Adam:
        return keras.optimizers.Adam(0.01, epsilon=1e-3)  # with less, a gradient near zero makes steps of rounding

    learner = make("linear", adam(), model_fit_kwargs={"batch_size": 50, "shuffle": False, "epochs": 3})
    bare = build("linear", adam())
    for _ in range(2):
        bare.compile(adam(), bare.loss, jit_compile=False)
        bare.fit(X, Y, batch_size=50, shuffle=False, epochs=3, verbose=0)
        proposed = learner.mli_propose_weights()
        for array, expected in zip(proposed.weights, bare.get_weights(), strict=True):
            assert array == pytest.approx(expected, abs=1e-6)
        learner.mli_accept_weights(proposed)


def test_without_reset_the_optimizer_goes_on_from_ones_own_accepted_proposal_only() -> None:
    learner = make(need_reset_optimizer=False)
    steps = learner.model.optimizer.iterations
    own = learner.mli_propose_weights()
    assert int(steps) == 0
    learner.mli_accept_weights(own)
    assert int(steps) == 4
    learner.mli_propose_weights()
    learner.mli_accept_weights(Weights([array + 1 for array in own.weights]))
    assert int(steps) == 4
    learner.mli_accept_weights(learner.mli_propose_weights())
    assert int(steps) == 8


def test_a_learning_rate_set_by_hand_stays() -> None:
    learner = make("linear")
    plain = learner.mli_propose_weights()
    learner.model.optimizer.learning_rate = 0.1
    assert as_bytes(learner.mli_propose_weights()) != as_bytes(plain)
    assert float(learner.model.optimizer.learning_rate) == pytest.approx(0.1)


def test_rounds_and_weights_shuffle_otherwise_and_the_same_round_the_same() -> None:
    learner = make()
    one, two, again = (as_bytes(trained(learner, round=number)) for number in (1, 2, 1))
    assert one == again != two


@pytest.mark.parametrize(
    "layer", [LAYERS.LSTM, lambda *more, **options: LAYERS.Bidirectional(LAYERS.GRU(*more, **options))]
)
def test_states_that_go_on_from_batch_to_batch_are_put_back_too(layer) -> None:
    keras.utils.set_random_seed(1)
    recurrent = layer(4, stateful=True)
    network = keras.Sequential([keras.Input((3, 2), batch_size=10), recurrent, LAYERS.Dense(3)])
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    data, sizes = (X.reshape(50, 3, 2), Y), {"batch_size": 10}
    learner = KerasLearner(network, data, data, model_fit_kwargs=sizes, model_evaluate_kwargs=sizes)
    states = keras_state.untracked(network)
    assert [tuple(each.shape) for each in states] == [(10, 4)] * 2
    proposed = learner.mli_propose_weights()
    verdict = learner.mli_test_weights(proposed)
    assert not any(np.any(each.numpy()) for each in states)
    assert as_bytes(learner.mli_propose_weights()) == as_bytes(proposed)
    assert learner.mli_test_weights(proposed).vote_score == verdict.vote_score
