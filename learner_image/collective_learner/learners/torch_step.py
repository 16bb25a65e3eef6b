"""One step of a training, and what a criterion's number means: the same on one device and on each of several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

Criterion = Callable[[Any, Any], Any]
"""From a model's outputs and the labels to one number: the mean over the batch."""

PRECISIONS = ("float32", "bf16")


def calculating(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Have what follows calculate in a precision.

    With ``bf16`` products of matrices are in bfloat16, and what needs more digits (losses, softmax, norms) in float32,
    as PyTorch's autocast chooses; the weights stay what they are.
    """
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def train_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    inputs: Any,
    labels: torch.Tensor,
    *,
    precision: str = "float32",
    scale: float = 1.0,
    pull: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Take one step, and return the criterion's value, which may still be on its way on the device.

    Parameters
    ----------
    precision
        One of PRECISIONS, for the model and the criterion.
    scale
        What the gradient is of: this times the criterion.
    pull
        Changes the gradient before the step, see `pull_back`.
    """
    optimizer.zero_grad(set_to_none=True)
    with calculating(precision, labels.device):
        loss: torch.Tensor = criterion(model(inputs), labels)
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        raise ValueError("criterion: it gives no tensor that depends on the weights; nothing can be learnt from it")
    (loss if scale == 1 else loss * scale).backward()  # type: ignore[no-untyped-call]
    if pull is not None:
        pull()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def pull_back(model: torch.nn.Module, start: Callable[[torch.Tensor], torch.Tensor], mu: float) -> None:
    """Add the gradient of FedProx's proximal term; a parameter that took no part is where it was.

    Parameters
    ----------
    start
        From a parameter to what it held when the training began.
    """
    for parameter in model.parameters():
        if parameter.grad is not None:
            # In this order a sparse gradient becomes a dense one, as the whole term is.
            parameter.grad = (parameter - start(parameter)).mul_(mu).add_(parameter.grad)


def reduction_of(criterion: object) -> str:
    """Return the reduction of a loss of torch.nn; any other criterion gives means."""
    return str(getattr(criterion, "reduction", "mean"))


def weight_of(criterion: Criterion, labels: torch.Tensor) -> int:
    """Return the factor of a batch's score: sums of such scores, by examples, are means over examples."""
    return 1 if reduction_of(criterion) == "sum" else len(labels)


def categorical_accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose highest output is that of their label."""
    return float((outputs.argmax(dim=1) == labels).float().mean())
