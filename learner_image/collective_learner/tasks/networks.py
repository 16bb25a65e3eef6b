"""The PyTorch side of the built-in tasks: small networks, and a learner around one of them.

Apart from the modules that register the tasks, so that knowing their names does not import PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner.learners.checks import number, whole_number
from collective_learner.learners.torch import PytorchLearner, categorical_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable

    from collective_learner.mli import DiffPrivConfig
    from collective_learner.tasks.data import ClassificationData, Examples

_SCORING_BATCH = 256


def digits_network() -> nn.Module:
    """Two convolutions over 8 x 8 pixels, given flat, and one hidden layer; about 38,000 weights.

    No BatchNorm: its statistics would be those of whichever site trained last.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def breast_cancer_network() -> nn.Module:
    """One hidden layer over 30 measurements."""
    return nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))


def network_learner(
    network: Callable[[], nn.Module],
    data: ClassificationData,
    *,
    learning_rate: float,
    epochs: int,
    seed: int,
    diff_priv_config: DiffPrivConfig | None,
    precision: str,
) -> PytorchLearner:
    """Build a learner that votes on its cross-entropy and reports its accuracy.

    Parameters
    ----------
    network
        Makes the network; its first weights come from `seed` alone, so that all learners start alike.
    diff_priv_config
        Train with differential privacy.
    """
    number("learning_rate", learning_rate, above=0)
    whole_number("epochs", epochs, at_least=1)
    whole_number("seed", seed, at_least=0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = network()
    train = DataLoader(
        _tensors(data.train),
        batch_size=data.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    return PytorchLearner(
        model,
        torch.optim.Adam(model.parameters(), lr=learning_rate),
        train,
        DataLoader(_tensors(data.vote), batch_size=_SCORING_BATCH),
        DataLoader(_tensors(data.test), batch_size=_SCORING_BATCH),
        criterion=nn.CrossEntropyLoss(),
        test_criterion=categorical_accuracy,
        num_train_batches=epochs * len(train),
        diff_priv_config=diff_priv_config,
        precision=precision,
    )


def _tensors(examples: Examples) -> TensorDataset:
    return TensorDataset(torch.from_numpy(examples.x), torch.from_numpy(examples.y))
