"""What a Keras learner is given, checked before anything is done with it: one error each, naming the parameter.

Keras itself says what went wrong inside a layer, rounds later, in many lines; and some numbers that mean nothing, such
as no epochs, it takes for a training of nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from collective_learner.learners.checks import whole_number
from collective_learner.learners.keras_devices import tensorflow

_OURS = frozenset({"self", "x", "y", "sample_weight", "return_dict", "kwargs"})
"""Arguments of `fit` and `evaluate` that the loaders and the learner decide."""
_COUNTS = frozenset({"batch_size", "epochs", "steps_per_epoch", "steps", "validation_steps", "validation_batch_size"})
"""Those that are whole numbers: Keras takes what is below 1 for something else, or trains on nothing."""
_AROUND = ("Exception encountered", "Graph execution error", "Detected at node", "File ", "Arguments received", "[[{{")
"""How lines begin that say where an error was met, and not what it is."""


def ready(model: Any) -> Any:
    """Return a model that can be trained.

    Raises
    ------
    ValueError
        It is none, or not built, or not compiled.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: {type(model).__name__}, a keras.Model is needed")
    if not model.built or not model.weights:
        raise ValueError("model: it has no weights yet; give it an Input, or call build or the model itself first")
    if not model.compiled or getattr(model, "optimizer", None) is None:
        raise ValueError("model: it must be compiled, with an optimizer and a loss")
    return model


def checked_options(name: str, method: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return further arguments of `fit` or `evaluate`, checked against its signature here and not rounds later.

    Raises
    ------
    ValueError
        It has no such argument, or a number is out of its range; the message names it.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{name}: {given!r}; a dict is needed")
    allowed = [parameter for parameter in inspect.signature(method).parameters if parameter not in _OURS]
    for key in given or {}:
        if key in _OURS:
            raise ValueError(f"{name}: {key!r} is decided by the learner and its loaders")
        if key not in allowed:
            raise ValueError(f"{name}: {method.__name__} has no argument {key!r}; it has {', '.join(allowed)}")
    found = {key: int(value) if isinstance(value, np.integer) else value for key, value in (given or {}).items()}
    for key in _COUNTS & found.keys():
        if found[key] is not None or key == "epochs":
            whole_number(f"{name}: {key}", found[key], at_least=1)
    if (first := whole_number(f"{name}: initial_epoch", found.get("initial_epoch", 0), at_least=0)) >= (
        last := found.get("epochs", 1)
    ):
        raise ValueError(f"{name}: initial_epoch: {first}, but epochs is {last}; a smaller one is needed")
    return found


def errors_of_computations() -> tuple[type[Exception], ...]:
    """Name what Keras and its backend raise when a computation fails."""
    tf = tensorflow()
    own = (MemoryError, RuntimeError, ValueError, TypeError, IndexError)
    return own if tf is None else (*own, tf.errors.OpError)


def telling_line(error: BaseException) -> str:
    """Pick the line of an error of Keras, or of TensorFlow, that says what is wrong; not the labels that it met."""
    lines = (re.sub(r"\x1b\[\d+m", "", line).strip() for line in str(error).splitlines())
    told = next((line for line in lines if line and not line.startswith(_AROUND)), type(error).__name__)
    return told.partition("Label values:")[0].strip()[:500]
