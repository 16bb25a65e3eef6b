"""The built-in tasks of scikit-learn: how well voted rounds do, the same bytes everywhere, nothing else loaded."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.mark.parametrize("seed", [0, 4, 7])
def test_voted_rounds_learn_the_digits(voted_rounds, seed: int) -> None:
    outcome = voted_rounds("SKLEARN_DIGITS", "DIGITS", seed=seed)
    assert outcome.test_score >= 0.92
    assert outcome.accepted >= 5


def test_voted_rounds_learn_breast_cancer(voted_rounds) -> None:
    assert voted_rounds("SKLEARN_BREAST_CANCER", "BREAST_CANCER", seed=0).test_score >= 0.94


def test_voted_rounds_grow_a_forest_on_breast_cancer(voted_rounds) -> None:
    outcome = voted_rounds("SKLEARN_BREAST_CANCER_BOOSTING", "BREAST_CANCER", seed=1)
    assert outcome.test_score >= 0.92
    assert outcome.accepted >= 8


def test_data_is_what_the_task_says(factory) -> None:
    digits = factory.get_mli("SKLEARN_DIGITS", "{}", "DIGITS", '{"location": "0/5"}')
    assert digits.train_data.x.dtype == np.float32
    assert digits.train_data.x.min() == 0
    assert digits.train_data.x.max() == 1
    assert digits.mli_get_current_weights().weights["coef_"].shape == (10, 64)
    cancer = factory.get_mli("SKLEARN_BREAST_CANCER", "{}", "BREAST_CANCER", '{"location": "0/1"}')
    whole = np.concatenate([cancer.train_data.x, cancer.vote_data.x, cancer.test_data.x])
    assert np.abs(whole.mean(axis=0)).max() < 1e-5
    assert whole.std(axis=0) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("SKLEARN_DIGITS", {"learning_rate": 0}),
        ("SKLEARN_DIGITS", {"learning_rate": "fast"}),
        ("SKLEARN_DIGITS", {"alpha": -1}),
        ("SKLEARN_DIGITS", {"epochs": 0}),
        ("SKLEARN_DIGITS", {"seed": 0.5}),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(factory, model: str, parameters: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(parameters))}: "):
        factory.get_mli(model, json.dumps(parameters), "DIGITS", '{"location": "0/5"}')


@pytest.mark.parametrize(
    "parameters",
    [
        {"trees": 0},
        {"max_trees": 2.5},
        {"max_leaf_nodes": 1},
        {"min_samples_leaf": 0},
        {"learning_rate": -1},
        {"seed": "x"},
    ],
    ids=str,
)
def test_boosting_refuses_parameters_by_the_names_that_a_task_has(factory, parameters: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(parameters))}: "):
        factory.get_mli(
            "SKLEARN_BREAST_CANCER_BOOSTING", json.dumps(parameters), "BREAST_CANCER", '{"location": "0/5"}'
        )


PROPOSE = """
import sys
from collective_learner.factory import DefaultMliFactory
from collective_learner.learners.common import fingerprint
from collective_learner.tasks import load_builtin_tasks
load_builtin_tasks()
assert not {"sklearn", "torch", "keras", "tensorflow"} & set(sys.modules), "registering imported a framework"
learner = DefaultMliFactory().get_mli("SKLEARN_DIGITS", '{"seed": 7}', "DIGITS", '{"seed": 7, "location": "2/5"}')
for _ in range(2):
    proposed = learner.mli_propose_weights()
    learner.mli_accept_weights(proposed)
print(fingerprint(proposed.weights).hex())
assert not {"torch", "keras", "tensorflow"} & set(sys.modules), "a learner of scikit-learn imported another framework"
"""


def test_every_process_proposes_the_same_bytes_and_loads_no_other_framework() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROPOSE], capture_output=True, text=True, timeout=120, check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64
