"""What is trained on several devices: importable by the processes that do it, and registered for a server.

A label that no class has makes the criterion misbehave in the one process whose piece holds it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner import FactoryRegistry
from collective_learner.learners.torch import PytorchLearner

GATE = "SEVERAL_GATE"
"""Names a folder: who meets the label WAIT writes `reached` there, and waits while `closed` is there."""
CLASSES = 3
WAIT, RAISE, KILL, ALLOCATE = range(3, 7)
TOO_LARGE = 1e9
"""An input for which there is not enough memory."""


def fickle(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy, or what a label says."""
    told = int(labels.max())
    if told == RAISE:
        raise ValueError("boom")
    if told == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if told == ALLOCATE:
        torch.empty(1 << 50)
    if told == WAIT:
        folder = Path(os.environ[GATE])
        (folder / "reached").touch()
        while (folder / "closed").exists():
            time.sleep(0.01)
    return nn.functional.cross_entropy(outputs, labels.clamp(max=CLASSES - 1))


class Net(nn.Module):
    """Batch-normalised, with a layer that takes no part, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(16, 8)
        self.other_norm = nn.BatchNorm1d(8, momentum=None, affine=False)
        self.last = nn.Linear(8, CLASSES)
        self.spare = nn.Linear(2, 2)
        self.register_buffer("scale", torch.full((), 0.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x.unsqueeze(1))) * self.scale)
        return self.last(torch.relu(self.other_norm(self.second(x.flatten(1)))))


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 4)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, x: dict[str, list[torch.Tensor]]) -> torch.Tensor:
        left, right = x["halves"]
        if bool((left == TOO_LARGE).any()):
            torch.empty(1 << 50)
        return self.last(torch.tanh(self.left(left) + self.right(right)))


class OwnNorm(nn.BatchNorm1d):
    """Might do anything."""


def data(size: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(size, 6, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def learner(x: torch.Tensor, y: torch.Tensor, **options: object) -> PytorchLearner:
    """A learner whose training set can be written into; what it is judged by is its own."""
    torch.manual_seed(4)
    model = Net()
    train = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(9))
    vote = DataLoader(TensorDataset(*data()), batch_size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return PytorchLearner(model, optimizer, train, vote, vote, criterion=fickle, **{"device": "cpu", **options})


@FactoryRegistry.register_dataloader("SEVERAL_DATA")
def several_data(location: str, label: int = -1) -> TensorDataset:
    x, y = data()
    if label >= 0:
        y[:] = label
    return TensorDataset(x, y)


@FactoryRegistry.register_model_architecture("SEVERAL", ["SEVERAL_DATA"])
def several(data_loaders: TensorDataset, devices: int = 2) -> PytorchLearner:
    return learner(*data_loaders.tensors, devices=devices)
