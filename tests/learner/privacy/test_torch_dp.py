"""The audit of a private training with PyTorch: what the accountant assumes is what is done."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from contract import NO_NOISE, Arrays, Bench, PrivacyContract, private
from contract import X as ARRAY
from contract import Y as LABELS

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("opacus", reason="needs the extra torch-dp")
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torch_private import X, Y, by_hand, make, step_of

from collective_learner.environment import STATE_DIR
from collective_learner.learners.memory import TrainingOutOfMemoryError
from collective_learner.learners.torch import PytorchLearner
from collective_learner.mli import DiffPrivConfig, TrainingDivergedError, TrainingOptions
from collective_learner.privacy import torch_dp

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


@pytest.fixture
def seeded(monkeypatch):
    """Seeds private randomness, for statistics that come out the same every time."""
    seeds = iter(range(100, 1 << 20))
    monkeypatch.setattr(torch_dp, "from_the_system", lambda generator: generator.manual_seed(next(seeds)))


class Torch(Bench):
    """Learners with PyTorch."""

    resolution = 2**24

    def make(
        self,
        *,
        config: DiffPrivConfig,
        data: Arrays = (ARRAY, LABELS),
        batch_size: int = 10,
        steps: int | None = None,
        folder: Path | None = None,
    ) -> PytorchLearner:
        """Make a learner."""
        features = data[0].shape[1]
        network = nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, 3))
        held = TensorDataset(*map(torch.from_numpy, data))
        return make(
            network,
            config=config,
            data=held,
            batch_size=batch_size,
            num_train_batches=steps,
            privacy_folder=folder,
        )

    def silent(self, *, config: DiffPrivConfig, batch_size: int, steps: int) -> PytorchLearner:
        """Make one that learns nothing."""
        return make(
            nn.Linear(6, 5000),
            config=config,
            batch_size=batch_size,
            criterion=lambda outputs, labels: 0.0 * outputs.sum(),
            num_train_batches=steps,
        )

    def watch(
        self,
        learner: PytorchLearner,
        data: Arrays,
        monkeypatch: pytest.MonkeyPatch,
        *,
        at_step: Callable[[int], object] = lambda done: None,
    ) -> list[Sequence[int]]:
        """Note what the model sees in training, and when a step ends."""
        place = {row.tobytes(): at for at, row in enumerate(data[0])}
        steps: list[Sequence[int]] = []
        seen: list[int] = []
        complete = learner._private._complete

        def note(module, given, output) -> None:
            if module.training:
                seen.extend(place[row.numpy().tobytes()] for row in given[0])

        def completed(size: int, **more) -> None:
            assert size == len(seen)
            complete(size, **more)
            steps.append([*seen])
            seen.clear()
            at_step(len(steps))

        learner.model.register_forward_hook(note)
        monkeypatch.setattr(learner._private, "_complete", completed)
        return steps


class TestPyTorchKeepsTheContract(PrivacyContract):
    """With nothing of its own but the bench."""

    bench = Torch()


@pytest.mark.parametrize("norm", [0.05, 0.7, 100.0])
@pytest.mark.parametrize(
    "criterion", [nn.CrossEntropyLoss(), lambda outputs, labels: nn.functional.cross_entropy(outputs, labels).clone()]
)
def test_every_example_is_clipped_by_itself(norm: float, criterion) -> None:
    learner = make(config=private(noise=NO_NOISE, norm=norm), batch_size=60, criterion=criterion)
    expected = by_hand(learner.model, criterion, norm)
    # Sampled with probability 1, the batch is everything.
    for step, wanted in zip(step_of(learner).values(), expected, strict=True):
        np.testing.assert_allclose(step, wanted.numpy(), rtol=1e-3, atol=1e-6)


def test_one_example_moves_a_training_by_no_more_than_the_norm() -> None:
    """However extreme it is: the same training with and without it, and nothing else to tell them apart."""
    network, strange = nn.Linear(6, 3), torch.full((1, 6), 1e6)
    wrong = network(strange).argmin(dim=1)
    outlier = TensorDataset(torch.cat([X, strange]), torch.cat([Y, wrong]))
    with_it = make(copy.deepcopy(network), config=private(noise=NO_NOISE, norm=0.5), data=outlier, batch_size=61)
    without = make(copy.deepcopy(network), config=private(noise=NO_NOISE, norm=0.5), batch_size=60)
    one, other = step_of(with_it), step_of(without)
    moved = math.sqrt(sum(((61 * one[name] - 60 * other[name]) ** 2).sum() for name in one))
    assert moved == pytest.approx(0.5, rel=1e-3)


def test_randomness_is_the_systems_and_nobody_elses() -> None:
    network, proposals = nn.Linear(6, 3), []
    for _ in range(2):
        torch.manual_seed(0)
        learner = make(copy.deepcopy(network), config=private())
        for _ in range(2):  # the learner's own randomness is put back after each
            torch.manual_seed(0)
            proposals.append(learner.mli_propose_weights().weights["weight"].tobytes())
    assert len(set(proposals)) == 4


def test_a_generator_starts_from_all_the_randomness_that_it_can_hold() -> None:
    generator, other = torch.Generator(), torch.Generator()
    for each in (generator, other):
        torch_dp.from_the_system(each)
    words = generator.get_state()[24 : 24 + 8 * 624].view(torch.int64).numpy().astype(np.uint64)
    assert len(set(words)) > 620 and words.max() < 2**32
    reference = np.random.MT19937()
    reference.state = {"bit_generator": "MT19937", "state": {"key": words.astype(np.uint32), "pos": 624}}
    expected = (reference.random_raw(1000) & ((1 << 24) - 1)) / 2**24
    np.testing.assert_array_equal(torch.rand(1000, generator=generator).double().numpy(), expected)
    assert not torch.equal(torch.rand(9, generator=other), torch.rand(9, generator=generator))


def test_a_training_leaves_the_learner_as_it_was_and_tells_no_loss() -> None:
    learner = make(config=private(), need_reset_optimizer=False)
    before = learner.mli_get_current_weights().weights
    proposal = learner.mli_propose_weights()
    after = learner.mli_get_current_weights().weights
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert list(proposal.weights) == list(before) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert proposal.training_summary.metrics == {} and proposal.training_summary.examples == 60
    assert all(parameter.grad is None and parameter.grad_sample is None for parameter in learner.model.parameters())
    assert not any("activations" in vars(module) for module in learner.model.modules())
    verdict = learner.mli_test_weights(proposal)
    learner.mli_accept_weights(proposal)
    assert learner.vote_score == verdict.vote_score


def test_a_training_that_fails_or_diverges_is_charged_and_the_next_one_is_sound(monkeypatch) -> None:
    learner = make(config=private(noise=NO_NOISE, norm=0.5), batch_size=60)
    expected = by_hand(learner.model, learner.criterion, 0.5)

    def out_of_memory(*args, **more) -> None:
        raise torch.OutOfMemoryError("not really")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", out_of_memory)
        with pytest.raises(TrainingOutOfMemoryError, match=r"batches of 60 examples .* not really"):
            learner.mli_propose_weights()
    assert learner._private.spending.ledger.charges[0].steps == 1
    for step, wanted in zip(step_of(learner).values(), expected, strict=True):
        np.testing.assert_allclose(step, wanted.numpy(), rtol=1e-3, atol=1e-6)
    wild = make(config=private(norm=100.0), lr=3e38)
    with pytest.raises(TrainingDivergedError):
        wild.mli_propose_weights()
    assert wild._private.spending.ledger.charges == (wild._private.spending.planned,)


def test_the_proximal_term_needs_no_privacy() -> None:
    learner = make(config=private(noise=NO_NOISE), batch_size=60, num_train_batches=5, lr=0.2)
    far = step_of(learner)
    learner.mli_set_training_options(TrainingOptions(proximal_mu=4.0))
    near = step_of(learner)
    assert sum(np.abs(each).sum() for each in near.values()) < 0.8 * sum(np.abs(each).sum() for each in far.values())


@pytest.mark.parametrize(
    "network",
    [
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Dropout(0.3), nn.Linear(8, 3)),
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 3)
        ),
        lambda: nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3).requires_grad_(False)),
    ],
)
def test_other_layers_are_clipped_as_by_hand(network) -> None:
    network = network()
    learner = make(network, config=private(noise=NO_NOISE, norm=0.3), batch_size=60)
    if any(isinstance(module, nn.Dropout) for module in network.modules()):
        network[2].p = 0.0
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    expected = dict(zip(trained, by_hand(network, learner.criterion, 0.3), strict=True))
    moved = step_of(learner)
    for name, step in moved.items():
        wanted = expected[name].numpy() if name in expected else np.zeros_like(step)
        np.testing.assert_allclose(step, wanted, rtol=1e-3, atol=1e-6)
