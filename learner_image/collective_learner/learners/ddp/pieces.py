"""Splitting a batch among ranks so that their averaged gradients are the gradient of the whole batch.

DistributedDataParallel averages over ranks, which is the mean over examples only where all ranks have the same number.
So each rank scales its loss by the share that its piece has in the whole batch's mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from collective_learner.learners.torch_step import Criterion, reduction_of, weight_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one rank has of a batch."""

    inputs: Any
    labels: torch.Tensor
    share: float
    """The batch's loss is the sum over ranks of this times the piece's loss."""
    batch: int
    """Examples in the batch."""
    weight: int
    """What the batch's loss counts in the training's; the same for all ranks."""


def pieces_of(inputs: Any, labels: Any, criterion: Criterion, count: int) -> list[Piece]:
    """Split a batch into as many pieces, of sizes that differ by one at most.

    A batch with fewer examples than ranks, or with labels that do not count (`ignore_index`) in a whole piece, goes to
    every rank as it is: a rank without examples would have no gradient to average.

    Raises
    ------
    ValueError
        The batch holds something that has no examples to be split by.
    """
    if not isinstance(labels, torch.Tensor) or not labels.dim():
        raise ValueError(
            f"train_loader: labels of type {type(labels).__name__}; one tensor is needed on several devices"
        )
    size, weight = len(labels), weight_of(criterion, labels)
    bounds = [index * size // count for index in range(count + 1)]
    spans = [slice(first, last) for first, last in pairwise(bounds)]
    summed = reduction_of(criterion) == "sum"
    masses = [_mass(criterion, labels[span]) for span in spans]
    if not all(masses):
        return [Piece(inputs=inputs, labels=labels, share=1 / count, batch=size, weight=weight)] * count
    return [
        Piece(
            inputs=_part(inputs, span, size),
            labels=labels[span],
            share=1.0 if summed else mass / sum(masses),
            batch=size,
            weight=weight,
        )
        for span, mass in zip(spans, masses, strict=True)
    ]


def _mass(criterion: Criterion, labels: torch.Tensor) -> float:
    """Return what the criterion's mean divides by: the examples, or the weights of those classes that count."""
    if type(criterion) in (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss) and not labels.is_floating_point():
        counted = labels[labels != criterion.ignore_index]  # type: ignore[attr-defined]
        weights: torch.Tensor | None = criterion.weight  # type: ignore[attr-defined]
        return counted.numel() if weights is None else float(weights[counted.to(weights.device)].double().sum())
    return len(labels)


def _part(value: Any, span: slice, size: int) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and len(value) == size:
        return value[span]
    if isinstance(value, Mapping):
        return {key: _part(each, span, size) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_part(each, span, size) for each in value]
    shape = (
        f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
    )
    raise ValueError(
        f"train_loader: {shape} in a batch of {size} examples cannot be split among devices; tensors with one row an "
        "example are needed"
    )
