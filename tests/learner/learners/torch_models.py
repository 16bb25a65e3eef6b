"""Models, data and looks at all that a PyTorch learner may not change: what the tests of PytorchLearner share."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner.learners.torch import PytorchLearner, categorical_accuracy
from collective_learner.mli import Weights

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
