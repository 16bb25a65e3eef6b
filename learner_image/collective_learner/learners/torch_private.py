"""A learner's way to training with differential privacy, which needs an extra of its own (`privacy.torch_dp`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from collective_learner.learners.torch_devices import memory_named
from collective_learner.learners.torch_keep import Kept
from collective_learner.learners.torch_step import Criterion
from collective_learner.mli import DiffPrivConfig, TrainingSummary

if TYPE_CHECKING:
    from collective_learner.privacy.torch_dp import PrivateTraining


def private_training(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: object,
    criterion: Criterion,
    config: DiffPrivConfig,
    *,
    steps: int | None,
    folder: str | os.PathLike[str] | None,
) -> PrivateTraining:
    """Make what trains with privacy; parameters are those of `PrivateTraining`.

    Raises
    ------
    ValueError
        The extra is missing, or something would break the promise.
    """
    try:
        from collective_learner.privacy.torch_dp import PrivateTraining  # noqa: PLC0415 - needs an extra of its own
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opacus":
            raise
        raise ValueError(
            "diff_priv_config: opacus is needed; pip install 'collective-operator[torch-dp]' brings it"
        ) from error
    return PrivateTraining(model, optimizer, loader, criterion, config, steps=steps, folder=folder)


def train_privately(
    private: PrivateTraining,
    kept: Kept,
    device: torch.device,
    *,
    go_on: Callable[[], None],
    count: Callable[[int], None],
    pull: Callable[[], None] | None,
) -> TrainingSummary:
    """Train, and count examples: of batches that are drawn by chance, their mean.

    Raises
    ------
    TrainingOutOfMemoryError
        Memory ran out.
    """

    def counting() -> None:
        go_on()
        count(private.batch_size)

    with memory_named(device, lambda: private.batch_size):
        return private.train(kept, device=device, go_on=counting, pull_back=pull)
