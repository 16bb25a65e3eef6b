"""What a PyTorch learner is given, checked before anything is done with it: one error each, naming the parameter.

PyTorch itself says what went wrong inside a layer, rounds later, and not which of the learner's parameters brought it
there. A mistake that it does not notice at all is an optimizer made of another model's parameters: it trains nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from collective_learner.learners.memory import is_out_of_memory
from collective_learner.learners.torch_batches import length_of
from collective_learner.learners.torch_state import named_tensors
from collective_learner.learners.torch_step import reduction_of


def check_criteria(criteria: Mapping[str, Any]) -> None:
    """Check losses and scores by the names of their parameters; None is one that is not given.

    Raises
    ------
    ValueError
        One cannot be called, or gives a number for each example.
    """
    for name, each in criteria.items():
        if each is not None and not callable(each):
            raise ValueError(
                f"{name}: {each!r}; a function of outputs and labels, such as a loss of torch.nn, is needed"
            )
        if (reduction := reduction_of(each)) not in ("mean", "sum"):
            raise ValueError(f"{name}: its reduction must be 'mean' or 'sum', it is {reduction!r}")


def check_loaders(loaders: Mapping[str, Any]) -> None:
    """Check loaders by the names of their parameters; None is a test set that is not given.

    Raises
    ------
    ValueError
        One is empty, or is nothing that can be gone through again and again.
    """
    for name, loader in loaders.items():
        if loader is None and name == "test_loader":
            continue
        if hasattr(loader, "__next__") or not hasattr(loader, "__iter__"):
            why = "can be gone through only once" if hasattr(loader, "__next__") else "has no batches"
            raise ValueError(f"{name}: a {type(loader).__name__} {why}; a DataLoader, or a list of batches, is needed")
        if length_of(loader) == 0:
            raise ValueError(f"{name}: no batches; at least one is needed")


def check_model(model: Any, optimizer: Any) -> None:
    """Check that there is something to train, and that the optimizer trains it.

    Raises
    ------
    ValueError
        One of the two is something else, or they are strangers.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: {_kind(model)}; a torch.nn.Module is needed")
    named_tensors(model)  # refuses what cannot travel
    own = {id(parameter) for parameter in model.parameters()}
    if not own:
        raise ValueError(f"model: {type(model).__name__} has no parameters; there is nothing to train")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer: {_kind(optimizer)}; a torch.optim.Optimizer is needed")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"optimizer: {type(optimizer).__name__} wants the loss several times in a step; one that takes a step a "
            "batch is needed, such as SGD or Adam"
        )
    if own.isdisjoint(id(each) for group in optimizer.param_groups for each in group["params"]):
        raise ValueError(
            "optimizer: none of its parameters is one of the model's; make it of model.parameters(), of this very model"
        )


@contextmanager
def explained(name: str, inputs: Any, labels: Any) -> Iterator[None]:
    """Say which batch it was that does not go through a model and its criterion.

    Parameters
    ----------
    name
        Of the loader that gave it.

    Raises
    ------
    ValueError
        In place of whatever was raised; not where memory ran out.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{name}: a batch with inputs {_described(inputs)} and labels {_described(labels)} does not go through the "
            f"model and its criterion: {type(error).__name__}: {error}"
        ) from error


def one_number(value: Any) -> Any:
    """Return what a criterion gave.

    Raises
    ------
    ValueError
        It is not one number.
    """
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise ValueError(f"criterion: it gives a tensor of shape {tuple(value.shape)}; one number is needed")
    return value


def _kind(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"


def _described(part: Any) -> str:
    if isinstance(part, torch.Tensor):
        return f"of shape {tuple(part.shape)}, {part.dtype}"
    if isinstance(part, dict):
        return "{" + ", ".join(f"{key!r}: {_described(value)}" for key, value in part.items()) + "}"
    if isinstance(part, tuple | list):
        return "(" + ", ".join(map(_described, part)) + ")"
    return f"of type {type(part).__name__}"
