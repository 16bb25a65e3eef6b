"""Everything of a PyTorch training that a round may not change, and how its tensors become named arrays.

What `state_dict` holds is not all: gradients, buffers that are not saved, the mode of each submodule, optimizer state,
and every random generator that shuffling, dropout and augmentation draw from. A learner that put back only its weights
would drift apart from the others round by round, and never propose the same thing twice.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collective_learner.learners.common import derive_seed

if TYPE_CHECKING:
    from collective_learner.mli import Array

# What numpy and safetensors both know. bfloat16 is added below: numpy does not know it.
_PLAIN = frozenset({
    torch.float16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
})


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's tensors by their names in its state_dict, those that are tied only once.

    Parameters
    ----------
    model
        Its parameters and saved buffers count.

    Returns
    -------
    dict
        Tensors that share memory with the model. Of names that mean the same tensor (tied weights) the first stands.

    Raises
    ------
    ValueError
        A tensor cannot be carried: a type that numpy does not have, uninitialised, or sharing memory with another
        one of another shape. The message names it.
    """
    return {name: tensor for name, (tensor, alias) in _with_aliases(model).items() if alias is None}


def to_arrays(model: torch.nn.Module) -> dict[str, Array]:
    """Copy the model's tensors into numpy arrays; bfloat16 as float32, which holds every value of it."""
    arrays: dict[str, Array] = {}
    for name, tensor in named_tensors(model).items():
        plain = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        arrays[name] = np.array(plain.detach().cpu().numpy(), order="C")
    return arrays


def load_arrays(model: torch.nn.Module, arrays: dict[str, Array]) -> None:
    """Copy arrays, named and shaped like those of `to_arrays`, into the model."""
    state: dict[str, torch.Tensor] = {}
    for name, (_, alias) in _with_aliases(model).items():
        if alias is not None:
            state[name] = state[alias]
            continue
        array = arrays[name]
        # from_numpy warns of views on received bytes, which cannot be written.
        state[name] = torch.from_numpy(array if array.flags.writeable else array.copy())
    model.load_state_dict(state)


def _with_aliases(model: torch.nn.Module) -> dict[str, tuple[torch.Tensor, str | None]]:
    found: dict[str, tuple[torch.Tensor, str | None]] = {}
    homes: dict[tuple[str, int], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"model: {name!r} in its state_dict is {type(tensor).__name__}, not a tensor")
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(f"model: {name!r} is not initialised yet; run a batch through the model first")
        if tensor.dtype not in _PLAIN and tensor.dtype != torch.bfloat16:
            raise ValueError(f"model: {name!r} has type {tensor.dtype}, which cannot be sent")
        home = homes.setdefault((str(tensor.device), tensor.data_ptr()), name) if tensor.numel() else name
        if home == name:
            found[name] = (tensor, None)
            continue
        other = found[home][0]
        if (tensor.shape, tensor.stride(), tensor.dtype) != (other.shape, other.stride(), other.dtype):
            raise ValueError(f"model: {name!r} shares memory with {home!r} but differs in shape, order or type")
        found[name] = (tensor, home)
    return found


@contextmanager
def left_as_it_was(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, loaders: Iterable[object]
) -> Iterator[None]:
    """Lend out a model, an optimizer and all randomness, and put everything back afterwards, also on an error."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    tensors |= {id(tensor): tensor for group in optimizer.param_groups for tensor in group["params"]}
    values = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    gradients = {key: tensor.grad for key, tensor in tensors.items() if tensor.is_leaf}
    modes = [(module, module.training) for module in model.modules()]
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    try:
        with _same_randomness(loaders):
            for key in gradients:  # accumulating into those that were there would change them
                tensors[key].grad = None
            yield
    finally:
        for module, name, buffer in buffers:  # a forward pass may have put another tensor in a buffer's place
            module._buffers[name] = buffer
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(values[key])
        for key, gradient in gradients.items():
            tensors[key].grad = gradient
        for module, training in modes:
            module.training = training
        optimizer.load_state_dict(optimizer_state)


@contextmanager
def _same_randomness(loaders: Iterable[object]) -> Iterator[None]:
    generators = [(generator, generator.get_state()) for generator in _generators(loaders)]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        for generator, state in generators:
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def seed_from(weights: bytes, loaders: Iterable[object]) -> None:
    """Seed every generator from its own state and a fingerprint of weights: other weights, another training."""
    everywhere = derive_seed(weights, torch.get_rng_state().numpy().tobytes())
    torch.manual_seed(everywhere)  # the GPUs' too
    random.seed(everywhere)
    np.random.seed(everywhere % 2**32)
    for generator in _generators(loaders):
        generator.manual_seed(derive_seed(weights, generator.get_state().numpy().tobytes()))


def _generators(loaders: Iterable[object]) -> list[torch.Generator]:
    """Find the generators of data loaders, their samplers and their data sets."""
    found: dict[int, torch.Generator] = {}
    holders: list[Any] = [loader for loader in loaders if loader is not None]
    for holder in holders:
        for name in ("sampler", "batch_sampler", "dataset"):
            if (inner := getattr(holder, name, None)) is not None:
                holders.append(inner)  # grows while it is walked: a batch sampler holds a sampler
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            found[id(generator)] = generator
    return list(found.values())


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors in a batch, which may be nested in tuples, lists and dicts."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return [to_device(value, device) for value in batch]
    return batch
