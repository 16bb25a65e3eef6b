"""KerasLearner: weights that are judged, refused, tied, of low precision, and given away."""

import math
import sys

import keras
import numpy as np
import pytest

from collective_learner.mli import ModelFormat, TrainingDivergedError, Weights

from .models import (
    LAYERS,
    OPTIMIZERS,
    as_bytes,
    build,
    everything,
    make,
    trained,
)


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
