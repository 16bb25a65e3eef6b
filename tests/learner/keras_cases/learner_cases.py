"""KerasLearner on TensorFlow: propose and test put everything back, options, stops, precision, devices, memory."""

import math
import random
import sys
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from collective_learner import KerasLearner
from collective_learner.learners import keras_state
from collective_learner.learners.keras_devices import model_scope, scope_of
from collective_learner.learners.memory import TrainingOutOfMemoryError
from collective_learner.mli import (
    ModelFormat,
    TrainingDivergedError,
    TrainingOptions,
    TrainingStoppedError,
    Weights,
)

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


def build(model="batch norm", optimizer="adam", *, metrics=("accuracy",), dtype=None, loss=None, **compiling):
    keras.utils.set_random_seed(4)
    layers = MODELS[model]() if isinstance(model, str) else model
    network = keras.Sequential([keras.Input((6,)), *layers, LAYERS.Dense(3, dtype=dtype)])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss, metrics=[*metrics], jit_compile=False, **compiling)
    return network


def make(model="batch norm", optimizer="adam", *, data=(X, Y), **options):
    network = model if isinstance(model, keras.Model) else build(model, optimizer)
    options = {"model_fit_kwargs": {"batch_size": 16, "callbacks": [Writing()]}, **options}
    return KerasLearner(network, data, (X, Y), (X, Y), **options)


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


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05),  # has state from the start
}
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
    learner = make("linear", OPTIMIZERS["adam"](), model_fit_kwargs={"batch_size": 50, "shuffle": False, "epochs": 3})
    bare = build("linear", OPTIMIZERS["adam"]())
    for _ in range(2):
        bare.compile(OPTIMIZERS["adam"](), bare.loss, jit_compile=False)
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


def test_a_vote_on_accuracy_wants_more_and_nan_never_wins() -> None:
    learner = make(
        "linear", OPTIMIZERS["adam"](), criterion="accuracy", minimise_criterion=False, model_fit_kwargs={"epochs": 30}
    )
    verdict = learner.mli_test_weights(learner.mli_propose_weights())
    assert verdict.vote
    assert verdict.vote_score > learner.vote_score
    for spoilt in (np.nan, np.inf):
        poison = learner.mli_get_current_weights()
        poison.weights[0][:, 0] = spoilt
        verdict = learner.mli_test_weights(poison)
        assert math.isnan(verdict.vote_score)
        assert not verdict.vote


def test_a_training_that_diverges_is_refused_and_leaves_everything() -> None:
    learner = make("linear", keras.optimizers.SGD(3e38), model_fit_kwargs={"epochs": 20})
    before = everything(learner)
    with pytest.raises(TrainingDivergedError, match=r"'[01] \(.*/(kernel|bias)\)' .* not finite"):
        learner.mli_propose_weights()
    assert everything(learner) == before


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    learner = make()
    before = everything(learner)
    own = learner.mli_get_current_weights().weights
    for wrong, message in [
        (own[:-1], r"\d tensors given"),
        ([own[0][:, :3], *own[1:]], r"'0 \(.*kernel\)' has shape \(6, 3\)"),
        ([own[0].astype(np.float64), *own[1:]], r"'0 \(.*kernel\)' has type float64"),
    ]:
        for method in (learner.mli_test_weights, learner.mli_accept_weights):
            with pytest.raises(ValueError, match=message):
                method(Weights(wrong))
    assert everything(learner) == before


def test_tied_weights_travel_once_and_stay_tied() -> None:
    keras.utils.set_random_seed(2)
    inputs, shared = keras.Input((6,)), LAYERS.Dense(6)
    network = keras.Model(inputs, LAYERS.Dense(3)(shared(keras.ops.relu(shared(inputs)))))
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    learner = make(network)
    proposed = learner.mli_propose_weights()
    assert [array.shape for array in proposed.weights] == [(6, 6), (6,), (6, 3), (3,)]
    learner.mli_accept_weights(proposed)
    assert shared.get_weights()[0].tobytes() == proposed.weights[0].tobytes()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_low_precision_trains_and_travels(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        network = build("batch norm", OPTIMIZERS["adam"](), dtype=None if policy == "bfloat16" else "float32")
    finally:
        keras.config.set_dtype_policy("float32")
    learner = make(network, model_fit_kwargs={"batch_size": 10, "epochs": 1})
    before = everything(learner)
    proposed = trained(learner, proximal_mu=0.01)
    assert everything(learner) == before
    assert {array.dtype.name for array in proposed.weights} == {"float32"}
    assert math.isfinite(learner.mli_test_weights(proposed).vote_score)
    learner.mli_accept_weights(proposed)
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)


def test_the_model_goes_out_as_a_safetensors_file() -> None:
    from safetensors.numpy import load

    learner = make()
    found = load(learner.exporter().file("safetensors"))
    for index, array in enumerate(learner.model.get_weights()):
        assert found[str(index)].tobytes() == array.tobytes()


@pytest.mark.parametrize("missing", [False, True])
def test_the_current_model_is_onnx_where_that_can_be_had(missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tf2onnx")
    if missing:
        monkeypatch.setitem(sys.modules, "tf2onnx", None)
    learner = make()
    before = everything(learner)
    model = learner.mli_get_current_model()
    assert everything(learner) == before
    assert model.model_format is (ModelFormat.SAFETENSORS if missing else ModelFormat.ONNX)
    assert ("tf2onnx, which is not installed" in model.description) is missing


SLICES = tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    ("data", "fit", "examples"),
    [
        (lambda: (X, Y), {}, 50),
        (lambda: (X, Y, np.ones(50)), {"validation_split": 0.2}, 40),
        (Slices, {}, 50),
        (lambda: SLICES.batch(16), {}, 50),
        (lambda: SLICES.batch(16, drop_remainder=True), {}, 48),
        (
            lambda: SLICES.filter(lambda x, y: y > 0).batch(16),
            {},
            int((Y > 0).sum()),
        ),
        (lambda: SLICES.repeat().batch(5), {"steps_per_epoch": 7}, 35),
    ],
    ids=["arrays", "weighted", "py", "tf", "tf whole", "tf filtered", "tf endless"],
)
def test_loaders_of_every_kind_and_their_examples(data, fit, examples: int) -> None:
    learner = make("linear", data=data(), model_fit_kwargs=fit)
    summary = learner.mli_propose_weights().training_summary
    assert summary.examples == examples
    assert 0 < summary.metrics["loss"] < 10


REFUSED = [
    ({"model_fit_kwargs": {"epoch": 3}}, "model_fit_kwargs: fit has no argument 'epoch'; it has batch_size, epochs"),
    ({"model_fit_kwargs": {"x": X}}, "model_fit_kwargs: 'x' is decided by the learner"),
    ({"model_evaluate_kwargs": {"step": 3}}, "model_evaluate_kwargs: evaluate has no argument 'step'"),
    ({"model_evaluate_kwargs": {"return_dict": False}}, "model_evaluate_kwargs: 'return_dict' is decided"),
    ({"criterion": "f1"}, "criterion: 'f1', the model is compiled with"),
    ({"test_criterion": "f1"}, "test_criterion: 'f1', the model is compiled with"),
    ({"data": iter([(X, Y)])}, "train_loader: a list_iterator can be gone through only once"),
    ({"data": (X[:0], Y[:0])}, "train_loader: no examples"),
    ({"data": tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(2)}, "train_loader: no batches"),
    ({"data": (X,)}, "train_loader: 1 arrays"),
    ({"diff_priv_config": object()}, "diff_priv_config: .* a DiffPrivConfig is needed"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_together_is_refused_by_name(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("linear", **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (object, "model: object, a keras.Model is needed"),
        (lambda: keras.Sequential([LAYERS.Dense(3)]), "model: it has no weights yet"),
        (lambda: keras.Sequential([keras.Input((6,)), LAYERS.Dense(3)]), "model: it must be compiled"),
    ],
)
def test_a_model_that_is_not_ready_is_refused(model, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasLearner(model(), (X, Y), (X, Y))


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
