"""What a learner says when its memory does not suffice, whichever framework ran out of it.

A framework's own message names an allocation of some tensor, which nobody can act on. What a person can change is the
batch size, and what they need to know is how much memory there was. The learner itself lives on: it puts everything
back as after any other error.
"""

from __future__ import annotations

from pathlib import Path

# TensorFlow's and PyTorch's own; XLA wraps its own in an internal error, which only its text tells apart.
_NAMES = frozenset({"ResourceExhaustedError", "OutOfMemoryError"})
_TEXTS = (
    "RESOURCE_EXHAUSTED",
    "out of memory",
    "Out of memory",
    "OOM when allocating",
    "can't allocate memory",  # PyTorch on a CPU
)


class TrainingOutOfMemoryError(MemoryError):
    """A training or a test needed more memory than there is; the learner is as it was before."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a framework, or of Python itself, says that memory ran out."""
    if isinstance(error, MemoryError) or any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    return any(text in str(error) for text in _TEXTS)


def out_of_memory(error: BaseException, *, batch_size: int | None, memory: str) -> TrainingOutOfMemoryError:
    """Make the error that a person can act on.

    Parameters
    ----------
    error
        What the framework raised; the line that tells what was asked for is told too.
    batch_size
        Examples in a batch; None when that is not known.
    memory
        What there is, for example that of `memory_of_machine`.
    """
    size = "of unknown size" if batch_size is None else f"of {batch_size}"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    telling = next((line.strip() for line in lines if any(text in line for text in _TEXTS)), lines[0])
    return TrainingOutOfMemoryError(
        f"out of memory with batches {size} examples ({memory}); smaller batches need less. {telling[:300]}"
    )


def memory_of_machine() -> str:
    """Tell the machine's memory, in words; of a pod it is that of its node."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return "memory unknown"
    kib = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines)}
    return f"{kib['MemAvailable'] / 2**20:.1f} GiB of {kib['MemTotal'] / 2**20:.1f} GiB free"
