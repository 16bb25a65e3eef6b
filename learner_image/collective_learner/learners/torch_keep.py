"""Everything of a PyTorch learner that a training or a test may not change, lent out and put back.

What `state_dict` holds is not all: gradients, buffers that are not saved, the mode of each submodule, optimizer state,
and every random generator that shuffling, dropout and augmentation draw from. A learner that put back only its weights
would drift apart from the others round by round, and never propose the same thing twice.

Memory: a learner never has more than two copies of the weights. A training works in the model's own tensors beside one
copy of what they held, and ends with the two exchanged in place: the copy's memory is the proposal. A test lends the
model the memory that the weights arrived in, and copies nothing but buffers.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collective_learner.learners.common import derive_seed
from collective_learner.learners.torch_state import named_tensors, over, to_array

if TYPE_CHECKING:
    from collective_learner.mli import Array

_CHUNK = 1 << 20
"""Numbers that are exchanged at a time."""


class Kept:
    """A copy of all tensors of a model and its optimizer's parameters."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        tensors = (*model.parameters(), *model.buffers(), *_optimized(optimizer))
        self.tensors = {id(tensor): tensor for tensor in tensors}
        self._values = {key: tensor.detach().clone() for key, tensor in self.tensors.items()}
        self._versions = {key: tensor._version for key, tensor in self.tensors.items()}

    def value(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return what a tensor held."""
        return self._values[id(tensor)]

    def unwritten(self, parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Whether nobody wrote into these since."""
        return all(
            each._version == self._versions[id(each)] and torch.equal(each, self.value(each)) for each in parameters
        )

    @torch.no_grad()
    def exchange(self, model: torch.nn.Module) -> dict[str, Array]:
        """Put the model's values back, and return those that it has now, in the memory of the copy."""
        taken = {}
        for name, tensor in named_tensors(model).items():
            value = self._values.pop(id(tensor), None)
            if value is None:  # a forward pass put it in another one's place
                taken[name] = np.array(to_array(tensor), order="C")
                continue
            _exchange(tensor.detach(), value)
            taken[name] = np.asarray(to_array(value), order="C")
        return taken

    @torch.no_grad()
    def put_back(self) -> None:
        """Put back what was not exchanged."""
        for key, value in self._values.items():
            self.tensors[key].copy_(value)


def _exchange(one: torch.Tensor, other: torch.Tensor) -> None:
    chunk = max(1, one.numel())
    if one.is_contiguous() and other.is_contiguous():
        one, other, chunk = one.view(-1), other.view(-1), _CHUNK
    for at in range(0, one.numel(), chunk):
        # One chunk is the whole where numbers do not lie in order.
        mine, theirs = (one[at : at + chunk], other[at : at + chunk]) if chunk == _CHUNK else (one, other)
        held = mine.clone()
        mine.copy_(theirs)
        theirs.copy_(held)


@contextmanager
def left_as_it_was(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, loaders: Iterable[object]
) -> Iterator[Kept]:
    """Lend out a model, an optimizer and all randomness, and put everything back afterwards, also on an error.

    The optimizer's own state is not copied: whoever steps the optimizer gives it another state first.
    """
    kept = Kept(model, optimizer)
    gradients = {key: tensor.grad for key, tensor in kept.tensors.items() if tensor.is_leaf}
    own = optimizer.state_dict()
    own = {**own, "param_groups": copy.deepcopy(own["param_groups"])}
    try:
        with _same_attributes(model), _same_modes(model), same_randomness(loaders):
            for key in gradients:  # accumulating into those that were there would change them
                kept.tensors[key].grad = None
            yield kept
    finally:
        kept.put_back()
        for key, gradient in gradients.items():
            kept.tensors[key].grad = gradient
        optimizer.load_state_dict(own)


@contextmanager
def showing(
    model: torch.nn.Module, arrays: Mapping[str, Array], loaders: Iterable[object], *, lend: bool
) -> Iterator[None]:
    """Have a model score with other weights, and put everything back afterwards, also on an error.

    Parameters
    ----------
    arrays
        Named and shaped like those of `to_arrays`.
    lend
        Whether parameters may become views of the arrays meanwhile: only where a forward pass does not write into them.
        Buffers are always copied, and so are parameters on another device, of another type, or sharing their memory.
    """
    alone = _alone(model) if lend else frozenset()
    lent: list[tuple[torch.Tensor, torch.Tensor]] = []
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    named = named_tensors(model)
    with _same_attributes(model), _same_modes(model), same_randomness(loaders), torch.no_grad():
        try:
            for name, tensor in named.items():
                given = over(arrays[name])
                if id(tensor) in alone and given.dtype == tensor.dtype and tensor.device == given.device:
                    lent.append((tensor, tensor.data))
                    tensor.data = given
                    continue
                if isinstance(tensor, torch.nn.Parameter):
                    values.append((tensor, tensor.detach().clone()))
                tensor.detach().copy_(given)
            yield
        finally:
            for tensor, data in lent:
                tensor.data = data
            for tensor, value in values:
                tensor.detach().copy_(value)


def _alone(model: torch.nn.Module) -> frozenset[int]:
    """Find the parameters whose memory no other tensor of the model looks at."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    held = (value for value in attributes if isinstance(value, torch.Tensor))
    everything = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *held)}
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in everything.values())
    return frozenset(
        id(parameter) for parameter in model.parameters() if users[parameter.untyped_storage().data_ptr()] == 1
    )


def _optimized(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


@contextmanager
def _same_attributes(model: torch.nn.Module) -> Iterator[None]:
    """Undo that a forward pass put another tensor in a buffer's place; what buffers hold is for others.

    The same for tensors in attributes that are no buffers: recurrent networks keep their state there.
    """
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for module, before in attributes:
            now = vars(module)
            for name in {name for each in (now, before) for name, value in each.items() if _has_tensors(value)}:
                if name in before:
                    now[name] = before[name]
                else:
                    del now[name]


def _has_tensors(value: object) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, tuple) and any(map(_has_tensors, value)))


@contextmanager
def _same_modes(model: torch.nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def same_randomness(loaders: Iterable[object]) -> Iterator[None]:
    """Put back all randomness of the process and of its loaders, also on an error."""
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


def seed_from(weights: bytes, number: int, loaders: Iterable[object]) -> int:
    """Seed every generator from its own state, a fingerprint of weights, and the number of the round.

    Returns
    -------
    int
        The seed of those generators that belong to nobody.
    """
    everywhere = derive_seed(weights, number, torch.get_rng_state().numpy().tobytes())
    torch.manual_seed(everywhere)  # the GPUs' too
    random.seed(everywhere)
    np.random.seed(everywhere % 2**32)
    for generator in _generators(loaders):
        generator.manual_seed(derive_seed(weights, number, generator.get_state().numpy().tobytes()))
    return everywhere


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
