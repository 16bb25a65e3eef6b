"""The audit of a private training: what the accountant assumes is what is done."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("opacus", reason="needs the extra torch-dp")

from scipy import stats  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler  # noqa: E402

from collective_learner.environment import STATE_DIR  # noqa: E402
from collective_learner.learners.memory import TrainingOutOfMemoryError  # noqa: E402
from collective_learner.learners.torch import PytorchLearner  # noqa: E402
from collective_learner.mli import (  # noqa: E402
    DiffPrivConfig,
    ErrorCodes,
    TrainingDivergedError,
    TrainingOptions,
    TrainingStoppedError,
)
from collective_learner.privacy import torch_dp  # noqa: E402
from collective_learner.privacy.accountant import epsilon_of  # noqa: E402
from collective_learner.privacy.ledger import LedgerError  # noqa: E402

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(60) % 3
NO_NOISE, ANY = 1e-9, 1e300

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


@pytest.fixture
def seeded(monkeypatch):
    """Seeds private randomness, for statistics that come out the same every time."""
    seeds = iter(range(100, 1 << 20))
    monkeypatch.setattr(torch_dp, "from_the_system", lambda generator: generator.manual_seed(next(seeds)))


def private(*, noise: float = 1.0, target: float = ANY, norm: float = 1.0) -> DiffPrivConfig:
    return DiffPrivConfig(target_epsilon=target, target_delta=1e-5, max_grad_norm=norm, noise_multiplier=noise)


def make(
    network=None,
    *,
    config: DiffPrivConfig | None,
    data=None,
    batch_size: int = 10,
    criterion=None,
    lr: float = 1.0,
    loader=None,
    **more,
) -> PytorchLearner:
    network = network or nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    data = data or TensorDataset(X, Y)
    return PytorchLearner(
        network,
        torch.optim.SGD(network.parameters(), lr=lr),
        loader or DataLoader(data, batch_size=batch_size, shuffle=True),
        DataLoader(data, batch_size=30),
        criterion=criterion or nn.CrossEntropyLoss(),
        diff_priv_config=config,
        device="cpu",
        **more,
    )


def step_of(learner: PytorchLearner) -> dict[str, np.ndarray]:
    """By how much a proposal differs from what is held."""
    held, proposed = learner.mli_get_current_weights().weights, learner.mli_propose_weights().weights
    return {name: held[name] - proposed[name] for name in held}


def by_hand(network: nn.Module, criterion, norm: float) -> list[torch.Tensor]:
    """Clip the gradient of each example, one at a time, and average; of those parameters that are trained."""
    trained = [each for each in network.parameters() if each.requires_grad]
    total = [torch.zeros_like(each) for each in trained]
    for x, y in zip(X, Y, strict=True):
        gradients = torch.autograd.grad(criterion(network(x[None]), y[None]), trained)
        length = math.sqrt(sum(float((each**2).sum()) for each in gradients))
        for sum_of, each in zip(total, gradients, strict=True):
            sum_of.add_(each, alpha=min(1.0, norm / length))
    return [each / len(X) for each in total]


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


@pytest.mark.parametrize(("noise", "norm", "batch_size"), [(1.3, 0.5, 10), (4.0, 2.0, 60)])
def test_the_noise_has_the_deviation_that_was_promised(seeded, noise: float, norm: float, batch_size: int) -> None:
    network = nn.Linear(6, 5000)
    learner = make(
        network,
        config=private(noise=noise, norm=norm),
        batch_size=batch_size,
        criterion=lambda outputs, labels: 0.0 * outputs.sum(),
        num_train_batches=1,
    )
    drawn = np.concatenate([step.ravel() for step in step_of(learner).values()])
    promised = noise * norm / batch_size
    assert len(drawn) == 35000
    assert stats.kstest(drawn / promised, "norm").pvalue > 0.01
    assert abs(drawn.std() / promised - 1) < 5 / math.sqrt(2 * len(drawn))
    # And independent from step to step: deviations of sums grow with the root.
    several = make(
        nn.Linear(6, 5000),
        config=private(noise=noise, norm=norm),
        batch_size=batch_size,
        criterion=lambda outputs, labels: 0.0 * outputs.sum(),
        num_train_batches=9,
    )
    summed = np.concatenate([step.ravel() for step in step_of(several).values()])
    assert abs(summed.std() / (3 * promised) - 1) < 5 / math.sqrt(2 * len(drawn))


def sizes_of(learner: PytorchLearner, monkeypatch) -> list[int]:
    sizes: list[int] = []
    complete = learner._private._complete
    monkeypatch.setattr(
        learner._private, "_complete", lambda size, **more: (sizes.append(size), complete(size, **more))
    )
    return sizes


def test_empty_batches_are_steps_that_spend_and_add_noise(seeded, monkeypatch) -> None:
    learner = make(config=private(noise=2.0), batch_size=1, num_train_batches=200)
    sizes = sizes_of(learner, monkeypatch)
    learner.mli_propose_weights()
    assert len(sizes) == 200 and sizes.count(0) > 40
    (charge,) = learner._private.spending.ledger.charges
    assert (charge.steps, charge.noise_multiplier) == (200, 2.0)
    # A training of nothing but an empty batch moves the weights by noise, and is charged.
    for _ in range(50):
        sizes.clear()
        learner._private.spending.planned = type(charge)(noise_multiplier=2.0, sample_rate=charge.sample_rate, steps=1)
        step = step_of(learner)
        if sizes == [0]:
            break
    assert sizes == [0]
    assert all(np.abs(each).min() > 0 for each in step.values())
    assert learner._private.spending.ledger.charges[0].steps > 200


def test_batches_are_drawn_by_poisson_sampling_at_the_rate_that_is_charged(seeded, monkeypatch) -> None:
    count, steps = 500, 200
    data = TensorDataset(torch.arange(count, dtype=torch.float32)[:, None], torch.zeros(count, dtype=torch.int64))
    learner = make(
        nn.Linear(1, 2), config=private(noise=5.0), data=data, batch_size=50, num_train_batches=steps, lr=1e-9
    )
    seen: list[np.ndarray] = []
    learner.model.register_forward_hook(
        lambda module, given, output: seen.append(given[0][:, 0].numpy().astype(int)) if module.training else None
    )
    learner.mli_propose_weights()
    rate = learner._private.spending.planned.sample_rate
    assert 0.1 <= rate < 0.1 + 2**-24 and rate * 2**24 == int(rate * 2**24)
    assert all(len(set(batch)) == len(batch) for batch in seen)
    sizes = np.array([len(batch) for batch in seen])
    # Sizes vary as coin tosses do, and do not make up for one another.
    assert abs(sizes.mean() - 50) < 5 * math.sqrt(45 / steps)
    assert abs(sizes.var() / 45 - 1) < 5 * math.sqrt(2 / steps)
    times = np.bincount(np.concatenate(seen), minlength=count)
    assert stats.chisquare(times).pvalue > 0.01 and abs(times.var() / (steps * 0.09) - 1) < 5 * math.sqrt(2 / count)


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


def test_a_rejected_proposal_is_charged_and_the_budget_ends_before_it_is_passed() -> None:
    spent_by_one = epsilon_of([make(config=private())._private.spending.planned], delta=1e-5)
    learner = make(config=private(target=2 * spent_by_one))
    told = []
    for _ in range(20):
        proposal = learner.mli_propose_weights()  # and nobody accepts it
        budget = proposal.training_summary.dp_budget
        told.append(budget.consumed_epsilon)
        assert budget.consumed_epsilon <= budget.target_epsilon and budget.consumed_delta == 1e-5
        if proposal.training_summary.error_code:
            break
    assert proposal.training_summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
    assert told[0] == pytest.approx(spent_by_one) and told[-1] == told[-2] and told[:-1] == sorted(set(told))
    current = learner.mli_get_current_weights().weights
    assert all(proposal.weights[name].tobytes() == current[name].tobytes() for name in current)
    charges = learner._private.spending.ledger.charges
    assert learner.mli_propose_weights().training_summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
    assert learner._private.spending.ledger.charges == charges
    assert epsilon_of([*charges, learner._private.spending.planned], delta=1e-5) > 2 * spent_by_one


def test_a_budget_too_small_for_one_training_spends_nothing() -> None:
    summary = make(config=private(target=0.01)).mli_propose_weights().training_summary
    assert summary.error_code is ErrorCodes.DP_BUDGET_EXCEEDED
    assert (summary.dp_budget.consumed_epsilon, summary.dp_budget.consumed_delta) == (0, 0)


def test_a_training_that_is_stopped_has_spent_what_it_did(monkeypatch) -> None:
    learner = make(config=private(), num_train_batches=10)
    sizes = sizes_of(learner, monkeypatch)

    def stop_after_three(module, given, output) -> None:
        if module.training and len(sizes) == 2:
            learner.mli_stop_training()

    learner.model.register_forward_hook(stop_after_three)
    with pytest.raises(TrainingStoppedError):
        learner.mli_propose_weights()
    assert [charge.steps for charge in learner._private.spending.ledger.charges] == [len(sizes)] == [3]
    sizes.extend([0] * 9)
    assert learner.mli_propose_weights().training_summary.dp_budget.consumed_epsilon == pytest.approx(
        epsilon_of(learner._private.spending.ledger.charges, delta=1e-5)
    )
    assert [charge.steps for charge in learner._private.spending.ledger.charges] == [13]


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


def test_a_ledger_outlives_its_learner_and_refuses_other_data(tmp_path) -> None:
    learner = make(config=private(), privacy_folder=tmp_path)
    first = learner.mli_propose_weights().training_summary.dp_budget.consumed_epsilon
    del learner
    # Another noise is another charge on the same data.
    again = make(config=private(noise=2.0), privacy_folder=tmp_path)
    assert again._private.spending.budget().consumed_epsilon == first
    assert again.mli_propose_weights().training_summary.dp_budget.consumed_epsilon > first
    with pytest.raises(LedgerError, match=r"about other data \(60 examples, .*, not 59 examples"):
        make(config=private(), data=TensorDataset(X[:59], Y[:59]), privacy_folder=tmp_path)
    with pytest.raises(LedgerError, match="about other data"):
        make(config=private(), data=TensorDataset(X + 1e-3, Y), privacy_folder=tmp_path)


class Mixing(nn.Module):
    """Takes the mean of a batch away."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=0)


class Counting(nn.Module):
    """Keeps what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x):
            self.seen += x.sum(dim=0)
        return x


class Elsewhere(nn.Module):
    """Uses a layer's weights without the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"used": nn.Linear(6, 3), "asked": nn.Linear(6, 3)})
        self.register_parameter("own", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner["used"](x)


class Recurrent(nn.Module):
    """An LSTM over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(1, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.memory(x[..., None])[0][:, -1]


REFUSED = [
    (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "'1' is BatchNorm1d"),
    (lambda: nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3)), "'0' is BatchNorm1d"),
    (lambda: nn.Sequential(nn.Linear(6, 3), nn.SyncBatchNorm(3)), "'1' is SyncBatchNorm"),
    (Recurrent, "'memory' is LSTM"),
    (lambda: nn.Sequential(nn.Linear(6, 4), Mixing(), nn.Linear(4, 3)), "'1' mixes the examples of a batch"),
    (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True)),
        "'1' is InstanceNorm1d",
    ),
    (lambda: nn.Linear(6, 3).bfloat16(), "'weight' has type torch.bfloat16"),
]


@pytest.mark.parametrize(("network", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_breaks_privacy_by_example_is_refused_by_name(network, named: str) -> None:
    network = network()
    data = TensorDataset(X.to(next(network.parameters()).dtype), Y)
    criterion = None if isinstance(network, Recurrent) else lambda outputs, labels: outputs.float().mean()
    with pytest.raises(ValueError, match=named):
        make(network, config=private(), criterion=criterion, data=data)


def test_what_a_training_changes_without_noise_is_refused() -> None:
    learner = make(nn.Sequential(Counting(), nn.Linear(6, 3)), config=private())
    with pytest.raises(ValueError, match=r"training changed '0\.seen' without noise"):
        learner.mli_propose_weights()
    assert float(learner.model[0].seen.sum()) == 0


def test_weights_that_are_used_outside_of_their_layer_are_refused() -> None:
    network = Elsewhere()
    network.forward = lambda x: network.inner["used"](x) + nn.functional.linear(x, network.inner["asked"].weight)
    learner = make(network, config=private(), batch_size=60)
    with pytest.raises(ValueError, match=r"'inner\.asked\.weight' is used outside of its layer"):
        learner.mli_propose_weights()
    network = Elsewhere()
    network.forward = lambda x: network.inner["used"](x) + nn.functional.linear(x, network.inner["used"].weight)
    learner = make(network, config=private(), batch_size=60)
    with pytest.raises(ValueError, match=r"gradients of 'inner\.used\.weight' by example do not sum up"):
        learner.mli_propose_weights()


class Stream(IterableDataset):
    """In an order of its own."""

    def __len__(self) -> int:
        return len(X)

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def test_loaders_and_losses_that_break_it_are_refused() -> None:
    data = TensorDataset(X, Y)
    weighted = DataLoader(data, batch_size=10, sampler=WeightedRandomSampler(torch.ones(60), 60))
    whole = DataLoader(data, batch_size=None)
    for loader, named in (
        (weighted, "WeightedRandomSampler would not draw each example with the same probability"),
        (whole, "diff_priv_config needs a batch_size"),
        (DataLoader(Stream(), batch_size=10), "a DataLoader of a data set with a length is needed"),
        ([(X, Y)], "it is list"),
    ):
        with pytest.raises(ValueError, match=f"train_loader: .*{named}"):
            make(config=private(), loader=loader)
    with pytest.raises(ValueError, match="criterion: CrossEntropyLoss with weights"):
        make(config=private(), criterion=nn.CrossEntropyLoss(weight=torch.ones(3)))
    make(config=private(), criterion=nn.CrossEntropyLoss(weight=torch.ones(3), reduction="sum"))


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
