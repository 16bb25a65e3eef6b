"""Private learners with PyTorch, small enough to be followed by hand: what the audits share."""

from __future__ import annotations

import math

import numpy as np
import torch
from contract import X as ARRAY
from contract import Y as LABELS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner.learners.torch import PytorchLearner
from collective_learner.mli import DiffPrivConfig

X, Y = torch.from_numpy(ARRAY), torch.from_numpy(LABELS)


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
