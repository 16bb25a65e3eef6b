"""PytorchLearner: propose and test put everything back; means over examples; tensors by name."""

import copy
import itertools
import random

import numpy as np
import pytest

from collective_learner.mli import ModelFormat, Weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset, TensorDataset  # noqa: E402

from collective_learner.learners.torch import PytorchLearner, categorical_accuracy  # noqa: E402

torch.set_num_threads(1)
_SEEDED = torch.Generator().manual_seed(3)
X = torch.randn(50, 6, generator=_SEEDED)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


class Noisy(nn.Module):
    """Draws from every generator, in training and in scoring, and keeps a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("replaced", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.replaced = self.replaced + 1  # another tensor in its place
        shift = torch.rand(()) + random.random() + np.random.random()
        return self.linear(x) + 1e-3 * shift * torch.arange(3)


def batch_norm() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    model[3].eval()  # a mode of its own, to be kept
    return model


MODELS = {"batch norm": batch_norm, "noisy": Noisy}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),  # has state from the start
}
LOADERS = {
    "global": lambda: DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True),
    "own": lambda: DataLoader(
        TensorDataset(X, Y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(9)
    ),
    "one batch": lambda: DataLoader(TensorDataset(X, Y), batch_size=64),
}


def make(model="batch norm", optimizer="momentum", loader="own", *, warm: bool = False, **options) -> PytorchLearner:
    torch.manual_seed(4)
    network = MODELS[model]() if isinstance(model, str) else model
    stepper = OPTIMIZERS[optimizer](network.parameters())
    if warm:
        network(X).sum().backward()
        stepper.step()
    data = LOADERS[loader]
    options = {"criterion": nn.CrossEntropyLoss(), "test_criterion": categorical_accuracy, **options}
    return PytorchLearner(network, stepper, data(), data(), data(), device="cpu", **options)


def freeze(value):
    """Make anything comparable, and independent of what happens to it later."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: freeze(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [freeze(each) for each in value]
    return copy.deepcopy(value)


def everything(learner: PytorchLearner) -> dict:
    model = learner.model
    return {
        "state": freeze(dict(model.state_dict())),
        "buffers": freeze(dict(model.named_buffers())),
        "identity": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "gradients": freeze([parameter.grad for parameter in model.parameters()]),
        "modes": [module.training for module in model.modules()],
        "optimizer": freeze(learner.optimizer.state_dict()),
        "torch": freeze(torch.get_rng_state()),
        "numpy": freeze(np.random.get_state()),
        "python": random.getstate(),
        "loaders": [
            freeze(loader.generator.get_state()) for loader in learner._loaders if loader.generator is not None
        ],
        "vote_score": learner.vote_score,
    }


def as_bytes(weights: Weights) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in weights.weights.items()}


CASES = [
    *itertools.product(MODELS, OPTIMIZERS, ["own"], [True, False]),
    *itertools.product(MODELS, ["momentum"], ["global", "one batch"], [True, False]),
]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(("model", "optimizer", "loader", "reset"), CASES)
def test_propose_and_test_leave_everything_and_accept_changes_it(model, optimizer, loader, reset, warm) -> None:
    learner = make(model, optimizer, loader, warm=warm, need_reset_optimizer=reset)
    for _ in range(2):
        before = everything(learner)
        proposed = learner.mli_propose_weights()
        assert everything(learner) == before
        verdict = learner.mli_test_weights(proposed)
        assert everything(learner) == before
        assert as_bytes(learner.mli_propose_weights()) == as_bytes(proposed)
        learner.mli_accept_weights(proposed)
        assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
        assert learner.vote_score == verdict.vote_score
        assert not learner.mli_test_weights(proposed).vote  # equal is not better
        assert everything(learner)["modes"] == before["modes"]


def test_an_error_in_training_leaves_everything_too() -> None:
    calls = itertools.count()

    def fails(outputs, labels):
        if next(calls) == 6:
            raise RuntimeError("boom")
        return nn.functional.cross_entropy(outputs, labels)

    learner = make(criterion=fails)
    before = everything(learner)
    with pytest.raises(RuntimeError, match="boom"):
        learner.mli_propose_weights()
    assert everything(learner) == before


@pytest.mark.parametrize("loader", ["own", "global"])
def test_other_weights_another_order_of_examples(loader: str) -> None:
    orders = []

    def watch(outputs, labels):
        if outputs.requires_grad:
            orders[-1].append(labels.tolist())
        return nn.functional.cross_entropy(outputs, labels)

    learner = make(loader=loader, criterion=watch)
    for _ in range(3):
        orders.append([])
        proposed = learner.mli_propose_weights()
        learner.mli_accept_weights(proposed)
    assert orders[0] != orders[1] != orders[2]


def test_optimizer_state_goes_on_from_ones_own_accepted_proposal_only() -> None:
    learner = make(optimizer="adam", need_reset_optimizer=False)
    assert learner.optimizer.state_dict()["state"] == {}
    own = learner.mli_propose_weights()
    learner.mli_accept_weights(own)
    assert learner.optimizer.state_dict()["state"][0]["step"] == 4
    learner.mli_propose_weights()
    foreign = Weights({name: array + 1 for name, array in own.weights.items()})
    learner.mli_accept_weights(foreign)
    assert learner.optimizer.state_dict()["state"][0]["step"] == 4
    learner.mli_accept_weights(learner.mli_propose_weights())
    assert learner.optimizer.state_dict()["state"][0]["step"] == 8


def test_a_reset_training_forgets_momentum() -> None:
    fresh, warmed = make(), make()
    own = fresh.mli_get_current_weights()
    warmed.mli_accept_weights(warmed.mli_propose_weights())
    warmed.mli_accept_weights(own)
    assert as_bytes(warmed.mli_propose_weights()) == as_bytes(fresh.mli_propose_weights())


def test_scores_are_means_over_examples_not_batches() -> None:
    learner = make(loader="one batch")
    uneven = make(loader="own")  # batches of 16, 16, 16 and 2
    assert uneven.vote_score == pytest.approx(learner.vote_score, abs=1e-6)
    summed = make(loader="own", criterion=nn.CrossEntropyLoss(reduction="sum"))
    assert summed.vote_score == pytest.approx(learner.vote_score, abs=1e-6)
    with torch.no_grad():
        learner.model.eval()
        expected = nn.functional.cross_entropy(learner.model(X), Y)
        right = (learner.model(X).argmax(1) == Y).float().mean()
    assert learner.vote_score == pytest.approx(float(expected), abs=1e-6)
    assert uneven.mli_test_weights(uneven.mli_get_current_weights()).test_score == pytest.approx(float(right))


@pytest.mark.parametrize(("asked", "steps"), [(None, 4), (1, 1), (11, 11)])
def test_batches_of_a_training(asked: int | None, steps: int) -> None:
    seen = []

    def watch(outputs, labels):
        if outputs.requires_grad:
            seen.append(len(labels))
        return nn.functional.cross_entropy(outputs, labels)

    summary = make(criterion=watch, num_train_batches=asked).mli_propose_weights().training_summary
    assert len(seen) == steps
    assert summary.examples == 50
    assert np.isfinite(summary.metrics["loss"])


def test_batches_of_a_score() -> None:
    seen = []

    def watch(outputs, labels):
        seen.append(len(labels))
        return categorical_accuracy(outputs, labels)

    make(vote_criterion=watch, minimise_criterion=False, num_test_batches=3)
    assert seen == [16, 16, 16]
    seen.clear()
    make(vote_criterion=watch, minimise_criterion=False, num_test_batches=30)
    assert seen == [16, 16, 16, 2]


def test_a_vote_on_accuracy_wants_more() -> None:
    learner = make(vote_criterion=categorical_accuracy, minimise_criterion=False, num_train_batches=60)
    verdict = learner.mli_test_weights(learner.mli_propose_weights())
    assert verdict.vote
    assert verdict.vote_score > learner.vote_score


@pytest.mark.parametrize("criterion", [None, categorical_accuracy])
def test_nan_never_wins(criterion) -> None:
    learner = make(vote_criterion=criterion, minimise_criterion=criterion is None)
    for name in ("0.weight", "1.running_mean"):
        poison = learner.mli_get_current_weights()
        poison.weights[name].flat[0] = np.nan
        verdict = learner.mli_test_weights(poison)
        assert not verdict.vote
        assert np.isnan(verdict.vote_score)
    good = learner.mli_get_current_weights()
    learner.mli_accept_weights(poison)
    assert learner.mli_test_weights(good).vote


@pytest.mark.parametrize("criterion", [None, categorical_accuracy])
def test_outputs_that_are_not_numbers_have_no_score(criterion) -> None:
    learner = make(vote_criterion=criterion, minimise_criterion=criterion is None)
    poison = learner.mli_get_current_weights()
    poison.weights["4.weight"][:, 0] = np.inf  # times an output of 0 from the ReLU: not a number
    verdict = learner.mli_test_weights(poison)
    assert np.isnan(verdict.vote_score)
    assert np.isnan(verdict.test_score)
    assert not verdict.vote


def test_weights_by_name_with_buffers_and_refused_by_name() -> None:
    learner = make()
    weights = learner.mli_get_current_weights().weights
    assert list(weights) == list(learner.model.state_dict())
    assert weights["1.num_batches_tracked"].shape == ()
    before = everything(learner)
    for change, message in [
        ({"0.weight": np.zeros((8, 5), np.float32)}, "'0.weight' has shape"),
        ({"1.num_batches_tracked": np.zeros((), np.float32)}, "'1.num_batches_tracked' has type float32"),
        ({"9.weight": np.zeros(1)}, "unknown '9.weight'"),
    ]:
        for method in (learner.mli_test_weights, learner.mli_accept_weights):
            with pytest.raises(ValueError, match=message):
                method(Weights({**weights, **change}))
    assert everything(learner) == before


@pytest.mark.filterwarnings("error")
def test_views_that_cannot_be_written_are_read() -> None:
    learner = make()
    weights = learner.mli_propose_weights()
    for array in weights.weights.values():
        array.flags.writeable = False
    learner.mli_test_weights(weights)
    learner.mli_accept_weights(weights)
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(weights)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.second(torch.relu(self.first(x))))


def test_tied_weights_travel_once_and_stay_tied() -> None:
    learner = make(Tied())
    proposed = learner.mli_propose_weights()
    assert list(proposed.weights) == ["first.weight", "out.weight", "out.bias"]
    learner.mli_accept_weights(proposed)
    assert learner.model.second.weight is learner.model.first.weight
    assert learner.model.second.weight.detach().numpy().tobytes() == proposed.weights["first.weight"].tobytes()


def test_bfloat16_travels_as_float32_without_loss() -> None:
    from safetensors.torch import load

    model = nn.Sequential(nn.Linear(6, 3)).to(torch.bfloat16)
    criterion = lambda outputs, labels: nn.functional.cross_entropy(outputs.float(), labels)  # noqa: E731
    data = DataLoader(TensorDataset(X.to(torch.bfloat16), Y), batch_size=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learner = PytorchLearner(model, optimizer, data, data, criterion=criterion, device="cpu")
    proposed = learner.mli_propose_weights()
    assert proposed.weights["0.weight"].dtype == np.float32
    learner.mli_accept_weights(proposed)
    assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
    model = learner.mli_get_current_model()  # no ONNX for inputs of bfloat16
    assert model.model_format is ModelFormat.SAFETENSORS
    assert "bfloat16" in model.description
    assert load(model.model)["0.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.ParameterDict({"scale": nn.Parameter(torch.ones(3, dtype=torch.complex64))}), "'scale' has type"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "'0.weight' is not initialised"),
    ],
)
def test_tensors_that_cannot_travel_are_refused_by_name(model, message: str) -> None:
    data, optimizer = LOADERS["own"](), torch.optim.SGD([nn.Parameter(X)], lr=0.1)
    with pytest.raises(ValueError, match=message):
        PytorchLearner(model(), optimizer, data, data, criterion=nn.CrossEntropyLoss(), device="cpu")


def test_memory_shared_in_another_shape_is_refused_by_name() -> None:
    model = Tied()
    model.register_buffer("flat", model.first.weight.detach().view(-1))
    with pytest.raises(ValueError, match=r"'first.weight' shares memory with 'flat'|'flat' shares memory with"):
        make(model)


def test_the_model_goes_out_as_a_safetensors_file() -> None:
    from safetensors.torch import load

    learner = make()
    fresh = batch_norm()
    fresh.load_state_dict(load(learner.exporter().file("safetensors")))
    assert freeze(dict(fresh.state_dict())) == freeze(dict(learner.model.state_dict()))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0]), (X[1], Y[1]), (X[2], Y[2])])


def test_streams_have_no_length_and_work() -> None:
    model = nn.Linear(6, 3)
    data = DataLoader(Stream(), batch_size=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learner = PytorchLearner(model, optimizer, data, data, criterion=nn.CrossEntropyLoss())
    assert learner.mli_propose_weights().training_summary.examples == 3
    assert learner.mli_test_weights(learner.mli_get_current_weights()).test_score == 0.0


EMPTY = DataLoader(TensorDataset(X[:0], Y[:0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": None}, "criterion: None"),
        ({"criterion": nn.CrossEntropyLoss(reduction="none")}, "criterion: its reduction must be"),
        ({"train_loader": EMPTY}, "train_loader: no batches"),
        ({"vote_loader": EMPTY}, "vote_loader: no batches"),
        ({"vote_loader": iter(())}, "vote_loader: no batches"),
        ({"vote_loader": DataLoader(TensorDataset(X))}, r"vote_loader: .* pairs \(inputs, labels\) are needed"),
        ({"num_train_batches": 0}, "num_train_batches: 0"),
        ({"num_test_batches": -3}, "num_test_batches: -3"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    model = nn.Linear(6, 3)
    data = DataLoader(TensorDataset(X, Y), batch_size=16)
    arguments = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "train_loader": data,
        "vote_loader": data,
        "criterion": nn.CrossEntropyLoss(),
    }
    with pytest.raises(ValueError, match=message):
        PytorchLearner(**{**arguments, **change})
