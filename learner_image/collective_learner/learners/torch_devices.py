"""The devices that a PyTorch learner trains on, and what it says when their memory does not suffice.

A pod sees the GPUs that its task asked for, and is told their number. A script on a workstation sees all GPUs that
there are and was told nothing, so it takes one, as PyTorch does: processes for more are started where somebody asked.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from collective_learner.environment import GPUS
from collective_learner.learners.checks import whole_number
from collective_learner.learners.memory import is_out_of_memory, memory_of_machine, out_of_memory

_logger = logging.getLogger(__name__)


def devices_of(device: str | torch.device | None, count: int | None) -> list[torch.device]:
    """Choose the devices of a learner; the first is that of its own model.

    Parameters
    ----------
    device
        What the user wants; None for the GPU when there is one.
    count
        How many of that kind train together. None: as many GPUs as the learner was given, see `environment.GPUS`, where
        `device` leaves open which.

    Raises
    ------
    ValueError
        There are not so many, or several of what cannot work together.
    """
    try:
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: {device!r}; 'cpu', 'cuda', 'cuda:0', ... is needed") from error
    if count is None:
        count = _given() if wanted.type == "cuda" and wanted.index is None else 1
    elif whole_number("devices", count, at_least=1) > 1:
        if wanted.type not in ("cuda", "cpu"):
            raise ValueError(f"devices: {count}, only those of the types cuda and cpu train together, not {wanted}")
        if wanted.index is not None:
            raise ValueError(f"devices: {count}, but device names one alone: '{wanted}'; '{wanted.type}' is needed")
        if wanted.type == "cuda" and count > torch.cuda.device_count():
            raise ValueError(f"devices: {count}, PyTorch sees {torch.cuda.device_count()} GPUs")
    if count == 1:
        return [wanted]
    return [torch.device(f"cuda:{index}" if wanted.type == "cuda" else "cpu") for index in range(count)]


def usable(device: torch.device) -> torch.device:
    """Return a device that tensors can be put on.

    Raises
    ------
    ValueError
        It is not there, or holds no numbers.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts that it was built for a device
        raise ValueError(
            f"device: '{device}' cannot be used: {str(error).partition(chr(10))[0]}; PyTorch sees "
            f"{torch.cuda.device_count()} GPUs"
        ) from error
    if device.type == "meta":
        raise ValueError("device: 'meta' holds no numbers; 'cpu', 'cuda', 'cuda:0', ... is needed")
    return device


def _given() -> int:
    """Return how many GPUs the learner was given, as far as PyTorch sees them."""
    told = os.environ.get(GPUS, "") or "1"
    if not told.isdecimal():
        raise ValueError(f"{GPUS}: {told!r} in the environment, a whole number is needed")
    seen = torch.cuda.device_count()
    if int(told) > seen:
        _logger.warning("the task gives this learner %s GPUs, PyTorch sees %d", told, seen)
    return max(1, min(int(told), seen))


def memory_in_words(device: torch.device) -> str:
    """Tell a GPU's memory, or the machine's for a CPU."""
    if device.type != "cuda":
        return memory_of_machine()
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_allocated(device)
    told = f"{torch.cuda.get_device_name(device)}: {free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB free"
    return f"{told}, {own / 2**30:.1f} GiB taken by this process"


@contextmanager
def memory_named(device: torch.device, batch_size: Callable[[], int | None]) -> Iterator[None]:
    """Turn what PyTorch raises when memory runs out into an error that a person can act on.

    Parameters
    ----------
    batch_size
        Asked when it happens: examples in the batch that was too large.

    Raises
    ------
    TrainingOutOfMemoryError
        Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        told = out_of_memory(error, batch_size=batch_size(), memory=memory_in_words(device))
        traceback.clear_frames(error.__traceback__)  # they hold on to what is on the device
    else:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise told
