"""KerasLearner at its limits: memory, stops, errors, and no test that is not needed."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from collective_learner.learners.memory import TrainingOutOfMemoryError
from collective_learner.mli import TrainingStoppedError, Weights

from .models import LAYERS, Slices, X, Y, as_bytes, build, everything, make, trained


class Ballast(LAYERS.Layer):
    """Has many weights and little to do."""

    def __init__(self) -> None:
        super().__init__()
        self.many = [self.add_weight(shape=(1_000_000,), initializer="random_normal") for _ in range(6)]

    def call(self, x):
        return x + 1e-3 * keras.ops.stack([each[0] for each in self.many])


@pytest.mark.parametrize(("mu", "copies"), [(0.0, 2), (0.1, 1)])  # with a mu, one copy is the backend's own
def test_a_learner_has_no_more_than_two_copies_of_the_weights(mu: float, copies: int) -> None:
    network = build([Ballast()])
    learner = make(network, model_fit_kwargs={"batch_size": 50})
    size = sum(array.nbytes for array in network.get_weights())
    trained(learner, proximal_mu=mu)
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        proposed = learner.mli_propose_weights()
        proposing = tracemalloc.get_traced_memory()[1] - start
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        learner.mli_test_weights(proposed)
        testing = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
    assert (copies - 0.1) * size < proposing < (copies + 0.4) * size  # and one tensor on its way from here to there
    assert 0.9 * size < testing < 1.4 * size


class Stopper(keras.callbacks.Callback):
    """Has the learner stopped in the middle of a batch, from wherever the batch's end is told."""

    def __init__(self) -> None:
        super().__init__()
        self.learner, self.at, self.seen = None, None, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            self.learner.mli_stop_training()


@pytest.mark.parametrize(("at", "reset"), [(1, False), (7, True)])
def test_a_stop_in_the_middle_leaves_everything(at: int, reset: bool) -> None:
    stopper = Stopper()
    fit = {"batch_size": 16, "epochs": 2, "callbacks": stopper, "validation_data": (X, Y)}
    learner = make(need_reset_optimizer=reset, model_fit_kwargs=fit)
    expected = learner.mli_propose_weights()
    before = everything(learner)
    stopper.learner, stopper.at, stopper.seen = learner, at, 0
    with pytest.raises(TrainingStoppedError, match="between two batches"):
        learner.mli_propose_weights()
    assert stopper.seen == at
    assert everything(learner) == before
    stopper.at = None
    assert as_bytes(learner.mli_propose_weights()) == as_bytes(expected)


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise RuntimeError("boom")


def test_an_error_in_training_leaves_everything_too() -> None:
    learner = make(model_fit_kwargs={"batch_size": 16, "callbacks": [Fails()]})
    before = everything(learner)
    with pytest.raises(RuntimeError, match="boom"):
        learner.mli_propose_weights()
    assert everything(learner) == before


class Counting(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def on_test_batch_begin(self, batch, logs=None):
        self.seen += 1


@pytest.mark.parametrize("fixed", [False, True])
def test_accepting_what_was_tested_last_needs_no_second_test(fixed: bool) -> None:
    count = Counting()
    learner = make(model_evaluate_kwargs={"callbacks": [count]})
    one, two = trained(learner, round=1), trained(learner, round=2)
    for array in (*one.weights, *two.weights):
        array.flags.writeable = not fixed
    held = as_bytes(one), as_bytes(two)
    scores = [learner.mli_test_weights(proposal).vote_score for proposal in (one, two)]
    count.seen = 0
    learner.mli_accept_weights(Weights([*two.weights]))
    assert count.seen == 0
    assert learner.vote_score == scores[1]
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(two)
    learner.mli_accept_weights(one)
    assert count.seen > 0
    assert learner.vote_score == scores[0]
    learner.mli_propose_weights()
    assert (as_bytes(one), as_bytes(two)) == held  # proposals belong to whoever asked for them


class Greedy(LAYERS.Layer):
    """Runs out of memory once it is told to, with the error that TensorFlow's own operations give."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = self.add_weight(shape=(), dtype="float32", initializer="zeros", trainable=False)

    def call(self, x):
        return tf.ensure_shape(tf.py_function(self.allocate, [x, self.wanted.value], x.dtype), x.shape)

    @staticmethod
    def allocate(x, wanted):
        if wanted > 0:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[50,99999999]")
        return x


def test_too_little_memory_is_told_with_the_batch_size_and_the_learner_lives_on() -> None:
    greedy = Greedy()
    learner = make(build([greedy]), data=Slices())
    expected = learner.mli_propose_weights()
    place = next(index for index, each in enumerate(learner.model.weights) if each is greedy.wanted)
    wanting = learner.mli_get_current_weights().weights
    wanting[place] = np.asarray(1, np.float32)
    before = everything(learner)
    with pytest.raises(TrainingOutOfMemoryError, match=r"out of memory with batches of 32 examples \(.* GiB .*\)"):
        learner.mli_test_weights(Weights(wanting))
    assert everything(learner) == before
    greedy.wanted.assign(1)
    with pytest.raises(TrainingOutOfMemoryError, match=r"batches of 16 examples .* OOM when allocating tensor"):
        learner.mli_propose_weights()
    greedy.wanted.assign(0)
    assert as_bytes(learner.mli_propose_weights()) == as_bytes(expected)
