"""The built-in tasks of Keras: how well voted rounds do, data sets from files, precision."""

import json
import random
import statistics

import keras
import numpy as np
import pytest

from collective_learner.data.lookalikes import make
from collective_learner.data.splitting import split
from collective_learner.factory import DefaultMliFactory
from collective_learner.learners.common import fingerprint
from collective_learner.tasks import load_builtin_tasks

load_builtin_tasks()
FACTORY = DefaultMliFactory()


def members(model: str, loader: str, locations, *, seed: int = 0, **parameters):
    return [
        FACTORY.get_mli(
            model,
            json.dumps({"seed": seed, **parameters}),
            loader,
            json.dumps({"seed": seed, "location": str(location)}),
        )
        for location in locations
    ]


def voted_rounds(learners, rounds: int) -> tuple[float, int]:
    test_score, accepted = 0.0, 0
    for turn in range(rounds):
        proposer = turn % len(learners)
        weights = learners[proposer].mli_propose_weights()
        verdicts = [learner.mli_test_weights(weights) for learner in learners]
        approvals = sum(verdict.vote for index, verdict in enumerate(verdicts) if index != proposer)
        if approvals >= (len(learners) - 1) * 0.5:
            accepted += 1
            test_score = statistics.fmean(verdict.test_score for verdict in verdicts)
            for learner in learners:
                learner.mli_accept_weights(weights)
    return test_score, accepted


def test_voted_rounds_learn_the_digits() -> None:
    learners = members("KERAS_DIGITS", "DIGITS", ["0/3", "1/3"], seed=7)
    starts = {fingerprint(enumerate_names(learner)) for learner in learners}
    assert len(starts) == 1
    score, accepted = voted_rounds(learners, 3)
    assert score >= 0.9
    assert accepted >= 2


def enumerate_names(learner):
    return [(str(place), array) for place, array in enumerate(learner.mli_get_current_weights().weights)]


def test_breast_cancer_is_learnt_in_bfloat16() -> None:
    learners = members("KERAS_BREAST_CANCER", "BREAST_CANCER", ["0/2"], precision="bf16")
    assert learners[0].model.layers[1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert voted_rounds(learners, 1)[0] >= 0.85


CASES = [
    ("mnist", "KERAS_MNIST", "KERAS_MNIST_WITH_DP", {"steps_per_epoch": 50, "learning_rate": 0.003}, 0.6),
    ("mnist", "KERAS_MNIST_RESNET", "KERAS_MNIST", {"steps_per_epoch": 6}, 0.0),
    ("cifar10", "KERAS_CIFAR10", "KERAS_CIFAR10", {"steps_per_epoch": 6, "precision": "bf16"}, 0.0),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = {}
    for name in ("mnist", "cifar10"):
        folder = tmp_path_factory.mktemp(name)
        make(name, folder / "whole", examples=900)
        split(str(folder / "whole"), folder / "shards", learners=2, skew=None, seed=3)
        made[name] = folder / "shards"
    return made


@pytest.mark.parametrize(("data", "model", "loader", "parameters", "least"), CASES)
def test_models_learn_what_the_published_files_hold(shards, data, model, loader, parameters, least) -> None:
    learner = members(model, loader, [shards[data] / "1"], **parameters)[0]
    random.random()
    np.random.random()
    keras.random.normal(())
    twin = members(model, loader, [shards[data] / "1"], **parameters)[0]
    before = [each.tobytes() for each in learner.mli_get_current_weights().weights]
    proposed = learner.mli_propose_weights()
    assert [each.tobytes() for each in learner.mli_get_current_weights().weights] == before
    assert proposed.training_summary.examples == 405
    verdict = learner.mli_test_weights(proposed)
    again = twin.mli_propose_weights()  # made while every generator of the process was elsewhere
    for one, two in zip(proposed.weights, again.weights, strict=True):
        assert one.tobytes() == two.tobytes()
    assert verdict.test_score >= least
    learner.mli_accept_weights(proposed)
    assert learner.vote_score == verdict.vote_score


PRIVATE = {"target_epsilon": 3, "target_delta": 1e-3, "max_grad_norm": 1.0, "noise_multiplier": 2.0}


@pytest.mark.parametrize(
    ("model", "loader", "parameters", "examples", "steps"),
    [
        ("KERAS_MNIST", "KERAS_MNIST_WITH_DP", {"steps_per_epoch": 3, "num_microbatches": 2}, 405, 3),
        ("KERAS_CIFAR10", "KERAS_CIFAR10", {"steps_per_epoch": 2, "precision": "bf16"}, 405, 2),
        ("KERAS_DIGITS", "DIGITS", {"epochs": 2}, None, None),
        ("KERAS_BREAST_CANCER", "BREAST_CANCER", {"epochs": 1}, None, None),
    ],
)
def test_models_train_privately_where_the_task_says_so(shards, model, loader, parameters, examples, steps) -> None:
    location = shards[loader.split("_")[1].lower()] / "1" if loader.startswith("KERAS") else "0/3"
    (learner,) = members(model, loader, [location], diff_priv_config=PRIVATE, **parameters)
    before = [each.tobytes() for each in learner.mli_get_current_weights().weights]
    proposed = learner.mli_propose_weights()
    assert [each.tobytes() for each in learner.mli_get_current_weights().weights] == before
    assert [each.tobytes() for each in proposed.weights] != before
    told, planned = proposed.training_summary, learner._private.spending.planned
    assert 0 < told.dp_budget.consumed_epsilon <= told.dp_budget.target_epsilon == 3
    if examples is not None:
        assert (told.examples, planned.steps) == (examples, steps)
        assert planned.sample_rate == pytest.approx(32 / 405)
        assert learner._private._piece == (16 if "num_microbatches" in parameters else 405)


def test_a_network_that_normalises_batches_has_no_private_form(shards) -> None:
    with pytest.raises(ValueError, match="diff_priv_config"):
        members("KERAS_MNIST_RESNET", "KERAS_MNIST", [shards["mnist"] / "0"], diff_priv_config=PRIVATE)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"precision": "fp8"}, "precision: 'fp8', one of float32, bf16"),
        ({"steps_per_epoch": 0}, "steps_per_epoch: 0"),
        ({"vote_batches": 1.5}, "vote_batches: 1.5"),
        ({"learning_rate": "fast"}, "learning_rate: 'fast'"),
        ({"num_microbatches": 0}, "num_microbatches: 0"),
        ({"diff_priv_config": {"target_epsilon": 1}}, "diff_priv_config: "),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(shards, parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        members("KERAS_MNIST", "KERAS_MNIST", [shards["mnist"] / "0"], **parameters)
