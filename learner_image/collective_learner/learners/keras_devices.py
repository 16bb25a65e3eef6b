"""The devices that a Keras model is on: a GPU's memory is taken as it is needed, and several GPUs train one model.

TensorFlow takes all memory of every GPU that it sees when it first touches one, so that a second process on that GPU,
another learner or a notebook, gets none. That is decided before the first tensor: this module sets it when it is
imported, and so does everything here that makes a Keras model.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from collective_learner.learners.memory import memory_of_machine

# Read by TensorFlow when it opens a GPU; whoever set it otherwise is obeyed.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def tensorflow() -> Any:
    """Return TensorFlow where Keras runs on it, else None; what runs on another backend does not pay for it."""
    return sys.modules["tensorflow"] if keras.backend.backend() == "tensorflow" else None


def model_scope(devices: Sequence[str] | None = None) -> AbstractContextManager[Any]:
    """Give the scope in which a model is to be built and compiled.

    With several GPUs it is that of a `tf.distribute.MirroredStrategy`: each holds the model, and a batch is split among
    them. A pod sees the GPUs that its task asked for, so the task's count decides. With one device, and on other
    backends than TensorFlow, it changes nothing.

    Parameters
    ----------
    devices
        Names such as ``"GPU:0"`` in place of all GPUs that can be seen.
    """
    tf = tensorflow()
    if tf is None:
        return nullcontext()
    if devices is None:
        devices = [device.name.rpartition("physical_device:")[2] for device in tf.config.list_physical_devices("GPU")]
    if len(devices) < 2:
        return nullcontext()
    scope: AbstractContextManager[Any] = _mirrored(*devices).scope()
    return scope


@functools.cache  # a second one over the same devices would use the first one's names for its reductions, and fail
def _mirrored(*devices: str) -> Any:
    return tensorflow().distribute.MirroredStrategy(devices)


def scope_of(model: Any) -> AbstractContextManager[Any]:
    """Give the scope that a model was built in, where its variables are made and written."""
    strategy = getattr(model, "_distribute_strategy", None)
    scope: AbstractContextManager[Any] = nullcontext() if strategy is None else strategy.scope()
    return scope


def jit_compile() -> str | bool:
    """Say whether XLA is to compile a model: on one GPU, where it gains; a CPU's convolutions are faster without."""
    tf = tensorflow()
    return "auto" if tf is None or len(tf.config.list_physical_devices("GPU")) == 1 else False


def memory_in_words() -> str:
    """Tell how much memory there is: each GPU's, or the machine's where there is none."""
    tf = tensorflow()
    told = []
    for device in [] if tf is None else tf.config.list_logical_devices("GPU"):
        name = device.name.rpartition("device:")[2]
        used = tf.config.experimental.get_memory_info(name)
        told.append(f"{name}: {used['current'] / 2**30:.1f} GiB in use, {used['peak'] / 2**30:.1f} GiB at most so far")
    torch = sys.modules.get("torch") if keras.backend.backend() == "torch" else None
    if torch is not None and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        told.append(f"GPU: {free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB free")
    return "; ".join(told) or memory_of_machine()
