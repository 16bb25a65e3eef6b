"""What a Keras learner is given to train and to test on: any form that `fit` takes and that can be gone through again.

Keras would take a generator as well. It gives its examples once: the second round would train on nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import keras

_KERAS_BATCH = 32
"""What Keras cuts arrays into where nobody says otherwise."""


def as_arguments(name: str, loader: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a loader into arguments of `fit` and `evaluate`.

    Parameters
    ----------
    name
        Of the learner's parameter, for messages.
    loader
        A pair (x, y) or a triple (x, y, sample_weight) of arrays, or what gives batches: a `keras.utils.PyDataset`, a
        `tf.data.Dataset`, a `torch.utils.data.DataLoader`.
    options
        Those that go to `fit` or `evaluate` with it.

    Raises
    ------
    ValueError
        It is something that can be gone through only once, or has no batches, or no end.
    """
    bound = "steps_per_epoch in model_fit_kwargs" if name == "train_loader" else "steps in model_evaluate_kwargs"
    steps = options.get(bound.partition(" ")[0])
    if isinstance(loader, tuple | list):
        if len(loader) not in (2, 3):
            raise ValueError(f"{name}: {len(loader)} arrays; (x, y) or (x, y, sample_weight) are needed")
        arguments = dict(zip(("x", "y", "sample_weight"), loader, strict=False))
        _check_arrays(name, arguments)
        return arguments
    if not (isinstance(loader, keras.utils.PyDataset) or _is_tensorflow(loader) or _is_torch(loader)):
        why = " can be gone through only once" if hasattr(loader, "__next__") else ""
        raise ValueError(
            f"{name}: a {type(loader).__name__}{why}; arrays (x, y), a PyDataset, a tf.data.Dataset or a DataLoader is "
            "needed"
        )
    if _is_tensorflow(loader) and any(leaf.shape.rank == 0 for leaf in keras.tree.flatten(loader.element_spec)):
        raise ValueError(f"{name}: a tf.data.Dataset of single examples; one of batches is needed: batch(32)")
    batches = _batches(loader)
    if batches == 0:
        raise ValueError(f"{name}: no batches; at least one is needed")
    if batches is None and not steps:
        raise ValueError(f"{name}: it has no end; how many batches are to be taken of it is needed: {bound}")
    return {"x": loader}


def _check_arrays(name: str, arguments: Mapping[str, Any]) -> None:
    """Check that what is given are arrays, and one row of each belongs to one of the others.

    Keras says of what is none what it holds, and whose numbers those are it does not know.
    """
    rows: dict[int, str] = {}
    for argument, given in arguments.items():
        for leaf in keras.tree.flatten(given):
            shape = getattr(leaf, "shape", None)
            if shape is None or not len(shape):
                raise ValueError(f"{name}: {argument} is, or holds, a {type(leaf).__name__}; arrays are needed")
            rows.setdefault(int(shape[0]), argument)
    if len(rows) > 1:
        told = ", ".join(f"{argument} has {count}" for count, argument in rows.items())
        raise ValueError(f"{name}: {told} examples; as many of each are needed")
    if 0 in rows:
        raise ValueError(f"{name}: no examples; at least one is needed")


def batch_size_of(loader: Any, options: Mapping[str, Any]) -> int | None:
    """Find how many examples a batch has; None where that is not known."""
    if isinstance(loader, tuple | list):
        return options.get("batch_size") or _KERAS_BATCH
    size = getattr(loader, "batch_size", None)
    if isinstance(size, int):
        return size
    if _is_tensorflow(loader):
        leaves = keras.tree.flatten(loader.element_spec)
        return next((leaf.shape[0] for leaf in leaves if leaf.shape.rank), None)
    if isinstance(loader, keras.utils.PyDataset):
        return _rows(loader[0])
    return None


def examples_of(loader: Any, options: Mapping[str, Any]) -> int:
    """Find how many examples the training set holds.

    A `tf.data.Dataset` that does not know is gone through once; of one without end, what an epoch sees is counted. 0
    where nothing can be known.
    """
    if isinstance(loader, tuple | list):
        return len(loader[1]) - int(len(loader[1]) * (options.get("validation_split") or 0.0))
    for part in ("sampler", "dataset"):
        if (length := _length(getattr(loader, part, None))) is not None:
            return length
    if isinstance(loader, keras.utils.PyDataset) and hasattr(loader, "examples"):
        return int(loader.examples)
    batches = _batches(loader)
    if batches is None:
        steps = options.get("steps_per_epoch") or 0
        size = batch_size_of(loader, options)
        return steps and int(steps) * (_rows(next(iter(loader))) if size is None else size)
    if isinstance(loader, keras.utils.PyDataset):
        return (batches - 1) * _rows(loader[0]) + _rows(loader[batches - 1])
    known = int(loader.unbatch().cardinality()) if _is_tensorflow(loader) else -1
    return known if known >= 0 else sum(_rows(batch) for batch in loader)


def _batches(loader: Any) -> int | None:
    """Count the batches that a loader gives; None when it does not know, or has no end."""
    if _is_tensorflow(loader):
        tf = sys.modules["tensorflow"]
        known = int(loader.cardinality())
        if known == tf.data.INFINITE_CARDINALITY:
            return None
        return sum(1 for _ in loader) if known == tf.data.UNKNOWN_CARDINALITY else known
    if isinstance(loader, keras.utils.PyDataset):
        found: int | None = loader.num_batches
        return found
    return _length(loader)


def _is_tensorflow(loader: Any) -> bool:
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(loader, tf.data.Dataset)


def _is_torch(loader: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(loader, torch.utils.data.DataLoader)


def _rows(batch: Any) -> int:
    return int(keras.tree.flatten(batch)[0].shape[0])


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:  # a stream: it has no length
        return None
