"""The PyTorch side of the X-ray tasks: a small network, and a learner around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from collective_learner.learners.checks import number, whole_number
from collective_learner.learners.torch import PytorchLearner, categorical_accuracy

if TYPE_CHECKING:
    from collective_learner.mli import DiffPrivConfig
    from collective_learner.tasks.data import Examples
    from collective_learner.tasks.files import ImageData


class XrayNetwork(nn.Sequential):
    """Four convolutions over grey images of 128 x 128, given as unsigned bytes, and one hidden layer.

    No BatchNorm: its statistics would be those of whichever site trained last.
    """

    def __init__(self, classes: int) -> None:
        stages: list[nn.Module] = []
        for before, after in ((1, 8), (8, 16), (16, 32), (32, 32)):
            stages += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*stages, nn.Flatten(), nn.Linear(32 * 8 * 8, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Classify images of shape (n, 1, 128, 128)."""
        output = input.float() / 255
        for layer in self:
            output = layer(output)
        return output


def xray_learner(
    data: ImageData,
    *,
    learning_rate: float,
    steps_per_epoch: int,
    vote_batches: int,
    no_cuda: bool,
    vote_on_accuracy: bool,
    seed: int,
    diff_priv_config: DiffPrivConfig | None,
    precision: str,
) -> PytorchLearner:
    """Build a learner; the network's first weights come from `seed` alone, so that all learners start alike."""
    number("learning_rate", learning_rate, above=0)
    whole_number("seed", seed, at_least=0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = XrayNetwork(data.classes)

    def loader(examples: Examples, generator: torch.Generator | None = None) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(
            _tensors(examples),
            batch_size=data.batch_size,
            shuffle=generator is not None,
            generator=generator,
            pin_memory=data.pin_memory and not no_cuda and torch.cuda.is_available(),
        )

    return PytorchLearner(
        model,
        torch.optim.Adam(model.parameters(), lr=learning_rate),
        loader(data.train, torch.Generator().manual_seed(seed)),
        loader(data.vote),
        loader(data.test),
        device="cpu" if no_cuda else None,
        criterion=nn.CrossEntropyLoss(),
        minimise_criterion=not vote_on_accuracy,
        vote_criterion=categorical_accuracy if vote_on_accuracy else None,
        num_train_batches=steps_per_epoch,
        num_test_batches=vote_batches,
        diff_priv_config=diff_priv_config,
        test_criterion=categorical_accuracy,
        precision=precision,
    )


def _tensors(examples: Examples) -> TensorDataset:
    images = np.ascontiguousarray(np.moveaxis(examples.x, -1, 1))
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(examples.y.astype(np.int64)))
