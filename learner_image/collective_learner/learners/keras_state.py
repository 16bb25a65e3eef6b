"""Everything of a Keras model that a training or a test may not change, lent out and put back.

Weights are not all: the states of dropout's seed generators, metrics, the optimizer's variables, and the random
generators of Python, numpy, Keras and its backend. A learner that put back only its weights would drift apart from the
others round by round, and never propose the same thing twice.

Memory: a training has one copy of the weights beside the model's own, and its proposal is a second one. A variable that
holds one number throughout, as a fresh optimizer's do, is remembered as that number.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from collective_learner.learners.common import derive_seed
from collective_learner.learners.keras_devices import tensorflow

if TYPE_CHECKING:
    from collective_learner.mli import Array


_EAGER = ("_seed", "_rng")
"""Where TensorFlow keeps the seed of its operations: that can be set in public, but not read."""
_TOLD = ("stop_training", "stop_evaluating", "history")
"""Attributes of a model in which Keras keeps how its last training went."""


def to_array(variable: Any) -> Array:
    """Copy a variable into an array; bfloat16 as float32, which holds every value of it."""
    value = keras.ops.convert_to_numpy(variable)
    if value.dtype.name == "bfloat16":
        return np.asarray(value, dtype=np.float32)
    owned: Array = value if value.flags.owndata and value.flags.writeable else value.copy()
    return np.asarray(owned, order="C")


def names_of(model: Any) -> list[str]:
    """Name the weights, for messages: place and path. Paths alone differ from one model to the next of a process."""
    return [f"{index} ({variable.path})" for index, variable in enumerate(model.weights)]


def form_of(model: Any) -> dict[str, Array]:
    """Give names, shapes and types of the weights, as arrays of zeros that take no memory.

    Raises
    ------
    ValueError
        A weight is of a type that cannot travel.
    """
    form = {}
    for name, variable in zip(names_of(model), model.weights, strict=True):
        kind = "float32" if variable.dtype == "bfloat16" else variable.dtype
        try:
            form[name] = np.broadcast_to(np.zeros((), dtype=kind), tuple(variable.shape))
        except TypeError as error:
            raise ValueError(f"model: the weight {name} has type {variable.dtype}, which cannot be sent") from error
    return form


def each_array(model: Any) -> Iterator[tuple[str, Array]]:
    """Give copies of the weights one by one, by their places: paths differ between models that are alike."""
    for index, variable in enumerate(model.weights):
        yield str(index), to_array(variable)


def load_arrays(model: Any, arrays: Iterable[Array]) -> None:
    """Write arrays, one for each weight in order, into the model."""
    for variable, array in zip(model.weights, arrays, strict=True):
        variable.assign(array)


class Held:
    """What variables hold now, to be put back; copied, save where one number or another variable stands for it.

    Parameters
    ----------
    variables
        Whose values are kept.
    elsewhere
        Variables by the id of those whose values they hold already.
    """

    def __init__(self, variables: Iterable[Any], elsewhere: Mapping[int, Any] | None = None) -> None:
        elsewhere = elsewhere or {}
        self._values = [
            (variable, elsewhere[id(variable)] if id(variable) in elsewhere else _compact(to_array(variable)))
            for variable in variables
        ]

    def put_back(self, *, but: frozenset[int] = frozenset(), over: Held | None = None) -> None:
        """Write the values back.

        Parameters
        ----------
        but
            The ids of variables that are left alone.
        over
            What the variables hold now, where that is known: what is there already is not written again, since each
            write takes its time, however small.
        """
        now = {} if over is None else {id(variable): value for variable, value in over._values}
        for variable, value in self._values:
            if id(variable) in but or _is_same(now.get(id(variable)), value):
                continue
            full = isinstance(value, np.ndarray) and value.shape != tuple(variable.shape)
            variable.assign(np.broadcast_to(value, tuple(variable.shape)) if full else value)


def _is_same(one: Any, other: Any) -> bool:
    arrays = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return arrays and one.dtype == other.dtype and np.array_equal(one, other)


def _compact(array: Array) -> Array:
    if array.size > 1 and bool((array == array.flat[0]).all()):
        return array.flat[0:1].reshape(()).copy()
    return array


def seed_states(model: Any) -> list[Any]:
    """Return the states of the seed generators: the model's layers', and Keras' own for whoever has none."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights] + [_global_generator().state]


def untracked(model: Any) -> list[Any]:
    """Return the variables that layers hold and the model does not know of: where stateful recurrent layers are at."""
    known = {id(variable) for variable in model.variables}
    found = {}
    for value in (value for layer in model._flatten_layers() for value in vars(layer).values()):
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, keras.Variable) and id(each) not in known:
                found[id(each)] = each
    return [*found.values()]


def fresh_state(optimizer: Any, variables: Sequence[Any]) -> Held:
    """Find what an optimizer's variables hold before the first step. It is built, if it was not."""
    if not optimizer.built:
        optimizer.build(variables)
    if int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0:
        return Held(optimizer.variables)
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.build(variables)
    fresh = Held(())
    pairs = zip(optimizer.variables, twin.variables, strict=True)
    fresh._values = [(own, _compact(to_array(other))) for own, other in pairs]
    return fresh


def learning_rates(optimizer: Any) -> frozenset[int]:
    """Find the variables of the learning rate, which is a setting and no state: whoever changed it meant to."""
    return frozenset(id(each) for each in optimizer.variables if each.path.rpartition("/")[2] == "learning_rate")


@contextmanager
def left_as_it_was(
    model: Any, *, optimizer: bool, weights: bool = True, elsewhere: Mapping[int, Any] | None = None
) -> Iterator[Held | None]:
    """Lend out a model and all randomness, and put everything back afterwards, also on an error.

    Gives what the optimizer's variables hold, if they are lent.

    Parameters
    ----------
    optimizer
        Whether the optimizer's variables are lent too.
    weights
        Whether the weights are.
    elsewhere
        See `Held`.
    """
    held = [Held((*seed_states(model), *untracked(model), *model.metrics_variables))]
    if weights:
        held.append(Held(model.weights, elsewhere))
    optimized = Held(model.optimizer.variables) if optimizer else None
    if optimized is not None:
        held.append(optimized)
    told = {name: getattr(model, name) for name in _TOLD if hasattr(model, name)}
    try:
        with same_randomness():
            yield optimized
    finally:
        for each in held:
            each.put_back()
        for name, value in told.items():
            setattr(model, name, value)


@contextmanager
def same_randomness() -> Iterator[None]:
    """Put the random generators of the process back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    generator = _global_generator()
    state = to_array(generator.state)
    tf, torch = tensorflow(), _torch()
    context = None if tf is None else _tensorflow_context()
    eager = {} if context is None else {name: vars(context).get(name) for name in _EAGER}
    cpu = None if torch is None else torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        _set_global_generator(generator)
        generator.state.assign(state)
        for name, value in eager.items():
            setattr(context, name, value)
        if torch is not None:
            torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def seed_of_process() -> int:
    """Make a seed from the state of Python's and numpy's generators, without drawing from them."""
    return derive_seed(repr(random.getstate()).encode(), np.random.get_state(legacy=False)["state"]["key"].tobytes())


def seed_everything(model: Any, seed: int) -> None:
    """Seed every generator of the process and of the model."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch = _torch()
    if tensorflow() is not None:
        # Not by tf.random.set_seed, which also forgets every compiled function: a tenth of a second for a small model
        # at each training, and more for a large one. What `fit` shuffles with is made anew each time, from this seed.
        context = _tensorflow_context()
        context._seed, context._rng = seed % 2**31, random.Random(seed)  # noqa: S311
    if torch is not None:
        torch.manual_seed(seed)
    for index, state in enumerate(seed_states(model)):
        state.assign(np.array([derive_seed(seed, index) % (2**31 - 1), 0]))


def _global_generator() -> Any:
    from keras.src.random.seed_generator import global_seed_generator  # noqa: PLC0415 - no public way leads to it

    python = random.getstate()
    try:
        return global_seed_generator()  # draws its first seed from Python's generator, when there is none yet
    finally:
        random.setstate(python)


def _set_global_generator(generator: Any) -> None:
    from keras.src.backend.common import global_state  # noqa: PLC0415
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR  # noqa: PLC0415

    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)


def _tensorflow_context() -> Any:
    from tensorflow.python.eager import context  # noqa: PLC0415

    return context.context()


def _torch() -> Any:
    return sys.modules.get("torch") if keras.backend.backend() == "torch" else None
