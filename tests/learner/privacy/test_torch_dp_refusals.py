"""What would break the promise of a private training with PyTorch is refused by name."""

from __future__ import annotations

import pytest
from contract import private

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("opacus", reason="needs the extra torch-dp")
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler
from torch_private import X, Y, make

from collective_learner.environment import STATE_DIR

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    monkeypatch.delenv(STATE_DIR, raising=False)


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
