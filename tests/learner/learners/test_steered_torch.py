"""PytorchLearner's training as told from outside, FedProx and stops; what is not proposed, nor tested twice."""

import numpy as np
import pytest

from collective_learner.mli import TrainingDivergedError, TrainingOptions, TrainingStoppedError, Weights

pytest.importorskip("torch", reason="PyTorch is not installed")
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset
from torch_models import X, Y, as_bytes, everything, make

from collective_learner.learners.torch import PytorchLearner


def trained(learner: PytorchLearner, **options) -> Weights:
    learner.mli_set_training_options(TrainingOptions(**options))
    return learner.mli_propose_weights()


def distance(learner: PytorchLearner, weights: Weights) -> float:
    own = learner.mli_get_current_weights().weights
    trained = dict(learner.model.named_parameters())
    return float(np.sqrt(sum(((weights.weights[name] - own[name]) ** 2).sum() for name in trained)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])  # momentum swings around the start
def test_the_proximal_term_pulls_the_harder_the_nearer(optimizer: str) -> None:
    learner = make(optimizer=optimizer, num_train_batches=20)
    plain = as_bytes(trained(learner))
    assert plain == as_bytes(trained(learner, proximal_mu=0.0)) == as_bytes(trained(learner, proximal_mu=1e-30))
    distances = [distance(learner, trained(learner, proximal_mu=mu)) for mu in (0, 0.1, 1, 10)]
    assert distances == sorted(distances, reverse=True)
    assert len(set(distances)) == 4
    assert distances[-1] < 0.5 * distances[0]
    assert as_bytes(trained(learner)) == plain


@pytest.mark.parametrize("mu", [0.0, 0.7, 6.0])
def test_fedprox_agrees_with_a_reference(mu: float) -> None:
    network = nn.Linear(6, 3).double()
    data = DataLoader(TensorDataset(X.double(), Y), batch_size=10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    learner = PytorchLearner(
        network, optimizer, data, data, criterion=nn.CrossEntropyLoss(), device="cpu", num_train_batches=10
    )
    w0, b0 = (learner.mli_get_current_weights().weights[name] for name in ("weight", "bias"))
    w, b = w0.copy(), b0.copy()
    x, one_hot = X.double().numpy(), np.eye(3)[Y.numpy()]
    for step in range(10):
        rows = slice(10 * (step % 5), 10 * (step % 5) + 10)
        logits = x[rows] @ w.T + b
        chances = np.exp(logits - logits.max(1, keepdims=True))
        error = (chances / chances.sum(1, keepdims=True) - one_hot[rows]) / 10
        w, b = w - 0.1 * (error.T @ x[rows] + mu * (w - w0)), b - 0.1 * (error.sum(0) + mu * (b - b0))
    proposed = trained(learner, proximal_mu=mu).weights
    assert proposed["weight"] == pytest.approx(w, abs=1e-12)
    assert proposed["bias"] == pytest.approx(b, abs=1e-12)


def test_parameters_that_take_no_part_and_frozen_ones_stay() -> None:
    network = nn.ModuleDict({"used": nn.Linear(6, 3), "idle": nn.Linear(2, 2), "frozen": nn.Linear(6, 3)})
    network["frozen"].requires_grad_(False)
    network.forward = lambda x: network["used"](x) + network["frozen"](x)
    learner = make(network)
    before, after = learner.mli_get_current_weights(), trained(learner, proximal_mu=2.0)
    changed = {name for name in before.weights if as_bytes(before)[name] != as_bytes(after)[name]}
    assert changed == {"used.weight", "used.bias"}


def test_a_sparse_gradient_is_pulled_too() -> None:
    network = nn.Sequential(nn.EmbeddingBag(9, 3, sparse=True))
    data = DataLoader(TensorDataset(torch.arange(18).reshape(6, 3) % 9, torch.arange(6) % 3), batch_size=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    learner = PytorchLearner(network, optimizer, data, data, criterion=nn.CrossEntropyLoss(), num_train_batches=30)
    assert distance(learner, trained(learner, proximal_mu=5.0)) < distance(learner, trained(learner))


def test_every_round_trains_otherwise_and_the_same_round_the_same() -> None:
    rounds = [as_bytes(trained(make(), round=number)) for number in (1, 2, 2)]
    assert rounds[0] != rounds[1] == rounds[2]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("model", ["batch norm", "noisy"])
@pytest.mark.parametrize("batch", [0, 2, 5])
def test_a_stop_in_the_middle_leaves_everything(model: str, batch: int, reset: bool) -> None:
    seen: list[int] = []

    def criterion(outputs, labels):
        if outputs.requires_grad:
            seen.append(len(labels))
            if len(seen) == batch + 1:
                learner.mli_stop_training()
        return nn.functional.cross_entropy(outputs, labels)

    learner = make(model, "adam", criterion=criterion, need_reset_optimizer=reset, num_train_batches=7)
    seen.extend([0] * 9)  # no stop yet
    expected = learner.mli_propose_weights()
    before = everything(learner)
    seen.clear()
    with pytest.raises(TrainingStoppedError, match="between two batches"):
        learner.mli_propose_weights()
    assert len(seen) == batch + 1
    assert everything(learner) == before
    assert as_bytes(learner.mli_propose_weights()) == as_bytes(expected)


@pytest.mark.parametrize("fixed", [False, True])
def test_accepting_what_was_tested_last_needs_no_second_test(fixed: bool) -> None:
    calls = []

    def score(outputs, labels):
        calls.append(len(labels))
        return nn.functional.cross_entropy(outputs, labels)

    learner = make(vote_criterion=score)
    one, two = trained(learner, round=1), trained(learner, round=2)
    for proposal in (one, two):
        for array in proposal.weights.values():
            if fixed:
                array.flags.writeable = False
    scores = [learner.mli_test_weights(proposal).vote_score for proposal in (one, two)]
    calls.clear()
    learner.mli_accept_weights(Weights(dict(two.weights)))
    assert calls == []
    assert learner.vote_score == scores[1]
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(two)
    learner.mli_accept_weights(one)
    assert calls
    assert learner.vote_score == scores[0]


class Clamping(nn.Linear):
    """Writes into its parameters while it scores."""

    def forward(self, x):
        with torch.no_grad():
            self.weight.clamp_(-0.2, 0.2)
        return super().forward(x)


class Viewing(nn.Linear):
    """Scores with what else looks at a parameter's memory."""

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.seen = self.weight.detach().view(-1)

    def forward(self, x):
        return x @ self.seen.view(3, 6).T + self.bias


@pytest.mark.parametrize("kind", [lambda: Clamping(6, 3), Viewing, lambda: nn.Linear(6, 3)])
def test_scoring_never_writes_into_weights_that_arrived_and_sees_them(kind) -> None:
    learner, other = make(kind()), make(kind(), num_train_batches=40)
    given = other.mli_propose_weights()
    held = as_bytes(given)
    before = everything(learner)
    places = [parameter.data_ptr() for parameter in learner.model.parameters()]
    verdict = learner.mli_test_weights(given)
    assert as_bytes(given) == held
    assert everything(learner) == before
    assert [parameter.data_ptr() for parameter in learner.model.parameters()] == places
    assert verdict.vote_score != learner.vote_score
    learner.mli_accept_weights(given)
    assert learner.vote_score == verdict.vote_score
    assert learner.mli_test_weights(given).vote_score == verdict.vote_score


def test_proposals_stay_as_they_are_whatever_comes_after() -> None:
    learner = make(need_reset_optimizer=False)
    first = learner.mli_propose_weights()
    held = as_bytes(first)
    learner.mli_test_weights(first)
    learner.mli_accept_weights(first)
    learner.mli_accept_weights(learner.mli_propose_weights())
    assert as_bytes(first) == held


def test_large_and_unordered_tensors_are_exchanged_whole() -> None:
    network = nn.Sequential(nn.Linear(6, 3), nn.Module())
    network[1].forward = lambda x: x
    network[1].register_buffer("large", torch.arange(2_500_000.0))
    network[0].weight = nn.Parameter(torch.randn(6, 3).T)
    learner = make(network)
    own = learner.mli_get_current_weights()
    before = everything(learner)
    proposed = learner.mli_propose_weights()
    assert everything(learner) == before
    assert proposed.weights["1.large"].tobytes() == own.weights["1.large"].tobytes()
    assert proposed.weights["0.weight"].tobytes() != own.weights["0.weight"].tobytes()
    learner.mli_accept_weights(proposed)
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)


@pytest.mark.parametrize("reset", [True, False])
def test_a_training_that_diverges_is_refused_and_leaves_everything(reset: bool) -> None:
    network = nn.Sequential(nn.Linear(6, 3))
    network.register_buffer("mask", torch.tensor([float("-inf")]))  # as it was, so no reason to refuse
    learner = make(network, "sgd", need_reset_optimizer=reset)
    learner.mli_propose_weights()
    before = everything(learner)
    learner.criterion = lambda outputs, labels: outputs.sum() * 1e38 * 1e38
    with pytest.raises(TrainingDivergedError, match=r"the training diverged: '0\.(weight|bias)' .* not finite"):
        learner.mli_propose_weights()
    assert everything(learner) == before


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X[:5], Y[:5], strict=True))


@pytest.mark.parametrize(
    ("loader", "examples"),
    [
        (lambda: DataLoader(TensorDataset(X, Y), batch_size=16), 50),
        (lambda: DataLoader(TensorDataset(X, Y), batch_size=16, sampler=SubsetRandomSampler(range(20))), 20),
        (lambda: DataLoader(Stream(), batch_size=2), 5),
    ],
)
def test_examples_are_those_of_the_training_set(loader, examples: int) -> None:
    network = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    learner = PytorchLearner(
        network, optimizer, loader(), loader(), criterion=nn.CrossEntropyLoss(), num_train_batches=7
    )
    summary = learner.mli_propose_weights().training_summary
    assert summary.examples == examples
    assert 0 < summary.metrics["loss"] < 10
