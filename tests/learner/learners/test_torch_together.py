"""PytorchLearner on several devices: what comes of it is what one device trains, and no end of a process is its own."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from collective_learner.mli import DiffPrivConfig, TrainingOptions, TrainingStoppedError, Weights

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch

if not torch.distributed.is_available():
    pytest.skip("this PyTorch was built without torch.distributed", allow_module_level=True)

from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner.learners.ddp.member import RankFailedError
from collective_learner.learners.memory import TrainingOutOfMemoryError
from collective_learner.learners.torch import PytorchLearner

sys.path.append(str(Path(__file__).parents[1]))  # for the processes, too
import several
from torch_models import as_bytes, everything

torch.set_num_threads(1)


def trained(learner: PytorchLearner, **options) -> Weights:
    learner.mli_set_training_options(TrainingOptions(**options))
    return learner.mli_propose_weights()


def assert_alike(one: Weights, other: Weights, *, within: float = 2e-6) -> None:
    assert list(one.weights) == list(other.weights)
    for name, array in one.weights.items():
        assert array.dtype == other.weights[name].dtype
        np.testing.assert_allclose(array, other.weights[name], rtol=within, atol=within, err_msg=name)
    told, also = one.training_summary, other.training_summary
    assert told.examples == also.examples
    assert told.metrics["loss"] == pytest.approx(also.metrics["loss"], rel=1e-5)


class Pair:
    """The same learner on one device and on two, and what both train on."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.x, self.y = several.data()
        self.one, self.two = (several.learner(self.x, self.y, devices=devices) for devices in (1, 2))

    def agree(self, **options) -> Weights:
        one, two = (trained(learner, **options) for learner in (self.one, self.two))
        assert_alike(one, two)
        return two


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    gate = tmp_path_factory.mktemp("gate")
    os.environ[several.GATE] = str(gate)
    pair = Pair(gate)
    yield pair
    del os.environ[several.GATE]
    pair.two._ranks.close()


@pytest.fixture
def label(pair: Pair) -> Iterator[torch.Tensor]:
    """One label of the training set, to be written into."""
    held = pair.y[17].clone()
    yield pair.y[17]
    pair.y[17] = held


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_two_devices_train_what_one_does_and_leave_everything(pair: Pair, mu: float) -> None:
    before = everything(pair.two)
    own = pair.two.mli_get_current_weights()
    proposed = pair.agree(round=1, proximal_mu=mu)
    assert everything(pair.two) == before
    assert max(np.abs(proposed.weights[name] - own.weights[name]).max() for name in own.weights) > 0.01
    assert proposed.weights["spare.weight"].tobytes() == own.weights["spare.weight"].tobytes()
    assert as_bytes(trained(pair.two, round=1, proximal_mu=mu)) == as_bytes(proposed)
    assert as_bytes(trained(pair.two, round=2, proximal_mu=mu)) != as_bytes(proposed)
    for number in (None, 2, 9):  # batches: of a pass, fewer, more
        pair.one.num_train_batches = pair.two.num_train_batches = number
        proposed = pair.agree(round=3, proximal_mu=mu)
    pair.one.num_train_batches = pair.two.num_train_batches = None
    held = as_bytes(proposed)
    assert pair.two.mli_test_weights(proposed).vote
    for learner in (pair.one, pair.two):
        learner.mli_accept_weights(proposed)
    pair.agree(round=4, proximal_mu=mu)
    assert as_bytes(proposed) == held


@pytest.mark.slow
def test_three_devices_go_on_with_an_optimizer_and_uneven_weighted_batches() -> None:
    x, y = several.data()
    inputs = [{"halves": (row[:3], row[3:])} for row in x]
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.3, 1.0, 2.0]), ignore_index=1, label_smoothing=0.1)

    def make(devices: int) -> PytorchLearner:
        torch.manual_seed(4)
        model = several.Named()
        return PytorchLearner(
            model,
            torch.optim.Adam(model.parameters(), lr=0.01),
            DataLoader(list(zip(inputs, y, strict=True)), batch_size=7),  # the last batch is of one example
            DataLoader(list(zip(inputs, y, strict=True)), batch_size=50),
            criterion=criterion,
            need_reset_optimizer=False,
            device="cpu",
            devices=devices,
        )

    one, three = make(1), make(3)
    for number in range(3):
        first, second = trained(one, round=number), trained(three, round=number)
        assert_alike(first, second)
        one.mli_accept_weights(first)
        three.mli_accept_weights(second)
    states = [learner.optimizer.state_dict()["state"] for learner in (one, three)]
    assert float(states[1][0]["step"]) == 24
    for key, state in states[0].items():
        torch.testing.assert_close(state["exp_avg"], states[1][key]["exp_avg"], rtol=1e-4, atol=1e-6)
    assert len(three._ranks.pids) == 3
    x[17, 0] = several.TOO_LARGE
    told = (
        r"out of memory with batches of 7 examples \(device [123] of 3 \(cpu\): .* GiB .*\); smaller batches need less"
    )
    with pytest.raises(TrainingOutOfMemoryError, match=told):
        three.mli_propose_weights()
    assert three._ranks.pids == []


def test_a_stop_does_not_wait_for_the_batch_and_keeps_the_processes(
    pair: Pair, label: torch.Tensor, eventually
) -> None:
    pair.agree(round=6)
    before, pids = everything(pair.two), pair.two._ranks.pids
    label.fill_(several.WAIT)
    (pair.gate / "closed").touch()
    raised: list[BaseException] = []

    def train() -> None:
        try:
            pair.two.mli_propose_weights()
        except TrainingStoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        eventually((pair.gate / "reached").exists, what="the batch")
        counted = pair.two.examples_trained
        pair.two.mli_stop_training()
        thread.join(60)
        assert not thread.is_alive()
        assert (pair.gate / "closed").exists()  # the process still waits in its batch
    finally:
        (pair.gate / "closed").unlink()
        thread.join()
    assert len(raised) == 1
    assert counted > 0
    assert everything(pair.two) == before
    label.fill_(0)
    pair.agree(round=6)
    assert pair.two._ranks.pids == pids


@pytest.mark.slow
def test_whatever_fails_is_an_error_of_that_training_alone(pair: Pair, label: torch.Tensor) -> None:
    pair.agree(round=7)
    before = everything(pair.two)
    # One that went while nothing was asked of it is no error at all: others are started.
    os.kill(pair.two._ranks.pids[1], signal.SIGKILL)
    pair.two._ranks._members[1].process.join(60)
    for told, kind, message in [
        (several.RAISE, RankFailedError, r"device [12] of 2 \(cpu\): ValueError: boom"),
        (several.KILL, RankFailedError, r"device [12] of 2 \(cpu\) was ended by SIGKILL"),
    ]:
        label.fill_(told)
        with pytest.raises(kind, match=message) as caught:
            trained(pair.two, round=7)
        if told == several.RAISE:
            assert "in fickle" in "".join(caught.value.__notes__)  # where it happened, for the log
        assert pair.two._ranks.pids == []
        assert everything(pair.two) == before
    label.fill_(1)
    pair.agree(round=7)


def test_an_empty_loader_and_a_batch_that_cannot_be_split_leave_the_processes(pair: Pair) -> None:
    pair.agree(round=8)
    pids, loader = pair.two._ranks.pids, pair.two.train_loader
    x, y = several.data()
    try:
        for given, message in [
            ([], "train_loader: no batches"),
            ([(x, y), ([x, y[:3]], y)], r"train_loader: a tensor of shape \(3,\)"),
            ([(x, y), x], "train_loader: a Tensor; pairs"),
        ]:
            pair.two.train_loader = given
            with pytest.raises(ValueError, match=message):
                trained(pair.two)
    finally:
        pair.two.train_loader = loader
    pair.agree(round=8)
    assert pair.two._ranks.pids == pids


class _Local(nn.Linear):
    """Of a module that no other process can import."""

    def __reduce__(self):
        raise TypeError("cannot pickle a socket")


class _Scaled(nn.CrossEntropyLoss):
    pass


def test_what_cannot_be_trained_together_is_refused_at_once() -> None:
    x, y = several.data()
    extra = nn.Parameter(torch.ones(1))

    def build(**change) -> None:
        model = change.pop("model", None) or nn.Linear(6, 3)
        parameters = [*model.parameters(), *change.pop("more", ())]
        data = DataLoader(TensorDataset(x, y), batch_size=16)
        given = {"criterion": several.fickle, "devices": 2, **change}
        PytorchLearner(model, torch.optim.SGD(parameters, lr=0.1), data, data, device="cpu", **given)

    private = DiffPrivConfig(target_epsilon=1, target_delta=1e-3, max_grad_norm=1, noise_multiplier=1)
    for change, message in [
        (
            {"criterion": lambda o, y: nn.functional.cross_entropy(o, y) * 1},
            "criterion: it cannot be sent to the processes of",
        ),
        ({"model": _Local(6, 3)}, "model: it cannot be sent to the processes of 2 devices: cannot pickle a socket"),
        ({"model": several.OwnNorm(6)}, "model: '' is a OwnNorm, which normalises in a way of its own"),
        ({"more": [extra]}, "optimizer: it has parameters that are not the model's"),
        ({"diff_priv_config": private}, "diff_priv_config: with 2 devices; .* one device is needed: devices=1"),
        ({"devices": 0}, "devices: 0, a whole number of at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            build(**change)


def test_one_device_names_the_batch_and_the_memory_when_it_runs_out() -> None:
    x, y = several.data()
    learner = several.learner(x, y)
    before = everything(learner)
    y[17] = several.ALLOCATE
    with pytest.raises(TrainingOutOfMemoryError, match=r"batches of 16 examples \(.* GiB .* free\); smaller batches"):
        learner.mli_propose_weights()
    y[17] = 0
    assert everything(learner) == before
    learner.mli_propose_weights()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason=f"needs two GPUs, PyTorch sees {torch.cuda.device_count()}")
def test_two_gpus_train_what_one_does() -> None:
    x, y = several.data()
    one, two = (several.learner(x, y, device="cuda", devices=devices) for devices in (1, 2))
    for mu in (0.0, 0.7):
        assert_alike(trained(one, proximal_mu=mu), trained(two, proximal_mu=mu), within=1e-4)
    y[17] = several.RAISE
    with pytest.raises(RankFailedError, match=r"device [12] of 2 \(cuda:[01]\): ValueError: boom"):
        trained(two)
    two._ranks.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, PyTorch sees none")
def test_a_gpu_that_runs_out_of_memory_is_named() -> None:
    x, y = several.data()
    learner = several.learner(x, y, device="cuda")
    learner.criterion = lambda outputs, labels: torch.empty(1 << 44, device="cuda").sum() + outputs.sum()
    told = rf"batches of 16 examples \({re.escape(torch.cuda.get_device_name())}: .* GiB of .* GiB free"
    with pytest.raises(TrainingOutOfMemoryError, match=told):
        learner.mli_propose_weights()
    learner.criterion = several.fickle
    learner.mli_propose_weights()


def test_two_devices_calculate_in_bfloat16_as_one_does(pair: Pair) -> None:
    one, two = (several.learner(pair.x, pair.y, devices=devices, precision="bf16") for devices in (1, 2))
    try:
        proposed, also = trained(one, round=1), trained(two, round=1)
    finally:
        two._ranks.close()
    exact = trained(pair.one, round=1)
    assert as_bytes(proposed) != as_bytes(exact)
    for name, array in proposed.weights.items():
        assert array.dtype == exact.weights[name].dtype
        np.testing.assert_allclose(array, also.weights[name], rtol=0.05, atol=0.02, err_msg=name)
