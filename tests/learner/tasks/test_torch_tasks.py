"""The built-in tasks of PyTorch: how well voted rounds do, equal first weights, the same bytes everywhere."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn, which ships the data, is not installed")
import torch

torch.set_num_threads(1)


def test_voted_rounds_learn_the_digits(voted_rounds) -> None:
    outcome = voted_rounds("TORCH_DIGITS", "DIGITS", seed=0)
    assert outcome.test_score >= 0.95
    assert outcome.accepted >= 5


def test_voted_rounds_learn_breast_cancer(voted_rounds) -> None:
    assert voted_rounds("TORCH_BREAST_CANCER", "BREAST_CANCER", seed=0).test_score >= 0.94


def test_learners_start_with_the_weights_of_their_seed_and_touch_no_generator(factory) -> None:
    def first(index: int, seed: int) -> np.ndarray:
        parameters = json.dumps({"location": f"{index}/5", "seed": seed})
        learner = factory.get_mli("TORCH_DIGITS", json.dumps({"seed": seed}), "DIGITS", parameters)
        return learner.mli_get_current_weights().weights["1.weight"]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = first(0, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(one, first(4, 3))
    assert not np.array_equal(one, first(0, 4))


@pytest.mark.parametrize("parameters", [{"learning_rate": 0}, {"learning_rate": None}, {"epochs": 0}, {"seed": -1}])
def test_parameters_out_of_range_are_refused_by_name(factory, parameters: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(parameters))}: "):
        factory.get_mli("TORCH_DIGITS", json.dumps(parameters), "DIGITS", '{"location": "0/5"}')


PROPOSE = """
import torch
torch.set_num_threads(1)
from collective_learner.factory import DefaultMliFactory
from collective_learner.learners.common import fingerprint
from collective_learner.tasks import load_builtin_tasks
load_builtin_tasks()
learner = DefaultMliFactory().get_mli("TORCH_DIGITS", '{"seed": 7}', "DIGITS", '{"seed": 7, "location": "2/5"}')
for _ in range(2):
    proposed = learner.mli_propose_weights()
    learner.mli_accept_weights(proposed)
print(fingerprint(proposed.weights).hex())
"""


def test_every_process_proposes_the_same_bytes() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROPOSE], capture_output=True, text=True, timeout=120, check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64
