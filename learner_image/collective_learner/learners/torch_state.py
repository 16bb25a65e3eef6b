"""How the tensors of a PyTorch model become named arrays, and arrays tensors, without a copy where none is needed.

On a CPU an array and a tensor are two views of the same memory. Every function says whether what it gives is a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collective_learner.mli import Array

# What numpy and safetensors both know. bfloat16 is added below: numpy does not know it.
_PLAIN = frozenset(
    {
        torch.float16,
        torch.float32,
        torch.float64,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
    }
)


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


def all_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what `named_tensors` does, and the buffers that are not saved."""
    return {**dict(model.named_buffers()), **named_tensors(model)}


def to_arrays(model: torch.nn.Module) -> dict[str, Array]:
    """Copy the model's tensors into numpy arrays; bfloat16 as float32, which holds every value of it."""
    return {name: np.array(array, order="C") for name, array in each_array(model)}


def each_array(model: torch.nn.Module) -> Iterator[tuple[str, Array]]:
    """Give the model's tensors as arrays one by one, as views where the model is on a CPU."""
    for name, tensor in named_tensors(model).items():
        yield name, to_array(tensor)


def to_array(tensor: torch.Tensor) -> Array:
    """Give a tensor as an array: a view, unless the tensor is on another device or of bfloat16."""
    plain = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    array: Array = plain.detach().cpu().numpy()
    return array


def form_of(model: torch.nn.Module) -> dict[str, Array]:
    """Give names, shapes and types of the model's arrays, as arrays of zeros that take no memory."""
    return {
        name: np.broadcast_to(to_array(tensor.detach().new_zeros(())), tuple(tensor.shape))
        for name, tensor in named_tensors(model).items()
    }


def load_arrays(model: torch.nn.Module, arrays: Mapping[str, Array]) -> None:
    """Copy arrays, named and shaped like those of `to_arrays`, into the model's own tensors, one by one."""
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            tensor.detach().copy_(over(arrays[name]))


def over(array: Array) -> torch.Tensor:
    """Give a tensor over an array's memory, to be read only: PyTorch cannot keep it from being written."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    return torch.from_numpy(np.asarray(_Unlocked(array)))


class _Unlocked:
    """An array's memory without its write protection, of which `from_numpy` would warn."""

    def __init__(self, array: Array) -> None:
        self._array = array  # alive as long as a tensor is over it
        interface = dict(array.__array_interface__)
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _with_aliases(model: torch.nn.Module) -> dict[str, tuple[torch.Tensor, str | None]]:
    found: dict[str, tuple[torch.Tensor, str | None]] = {}
    homes: dict[tuple[str, int], str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
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


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors in a batch, which may be nested in tuples, lists and dicts."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return [to_device(value, device) for value in batch]
    return batch
