"""What a function must look like before it becomes a data loader or a model that tasks may name.

A learner's functions are called much later, in a pod, with JSON from a task file. What can go wrong then is refused
here, at import, with an error that names the function, where it stands, and the constraint. The bugs avoided: a loader
whose data the model cannot read, a parameter that nobody can set from a file, and two functions fighting for one name.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from collective_learner.mli import DiffPrivConfig, MachineLearningInterface

PRIVACY = "diff_priv_config"
"""The parameter that is an object in a task's file and a `DiffPrivConfig` in the function that takes it."""

_JSON_TYPES = (bool, int, float, str, list, tuple, dict, types.NoneType)
_JSON_ABSTRACT = (
    collections.abc.Mapping,
    collections.abc.MutableMapping,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)


class RegistrationError(ValueError):
    """A function cannot be registered.

    Parameters
    ----------
    kind
        ``"data loader"`` or ``"model"``.
    tag
        The name under which it was to be registered.
    function
        The function's own name, qualified by its module.
    where
        Its file and line.
    constraint
        What it does not fulfil.
    """

    def __init__(self, *, kind: str, tag: object, function: str, where: str, constraint: str) -> None:
        self.kind, self.tag, self.function, self.where, self.constraint = kind, tag, function, where, constraint
        super().__init__(f"{function} ({where}) cannot be the {kind} {tag!r}: {constraint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One registered function.

    Parameters
    ----------
    tag
        The name under which tasks ask for it.
    function
        The function.
    defaults
        Its default parameters: all but the first one, which is mandatory.
    data_type
        What a loader returns, or what a model takes, in a form that compares.
    data_loaders
        The tags of the loaders that a model works with; empty for a loader.
    """

    tag: str
    function: Callable[..., Any]
    defaults: Mapping[str, Any]
    data_type: object
    data_loaders: frozenset[str] = frozenset()
    spec: object = None
    """The module's import spec at registration: a reload makes a new one, a second function of that name does not."""

    def call(self, first: object, parameters: Mapping[str, Any]) -> Any:
        """Call the function with its first parameter and those of the others that were given.

        A mapping for ``diff_priv_config`` becomes a `DiffPrivConfig`, which raises when it cannot.
        """
        name, parameter = next(iter(inspect.signature(self.function).parameters.items()))
        given = parameters.get(PRIVACY)
        if isinstance(given, dict):
            parameters = {**parameters, PRIVACY: privacy_from(given)}
        if parameter.kind is parameter.KEYWORD_ONLY:
            return self.function(**{name: first}, **parameters)
        return self.function(first, **parameters)


class Candidate:
    """A function that wants to be registered, and the checks it has to pass."""

    def __init__(self, *, kind: str, tag: object, function: object) -> None:
        self._kind, self._tag = kind, tag
        self._inner = _innermost(function)
        self.name, self.where = describe(function)
        if not callable(function):
            raise self.refusal("a function is needed; write the decorator with its tag in parentheses")
        self.function: Callable[..., Any] = function
        if not isinstance(tag, str) or not tag.strip():
            raise self.refusal("the tag must be a string that is not empty")
        self.tag: str = tag
        if inspect.iscoroutinefunction(self._inner):
            raise self.refusal("it must be a plain function, not an async one")
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise self.refusal(f"its parameters cannot be read ({error})") from error

    def refusal(self, constraint: str) -> RegistrationError:
        """Build the error that says which constraint is not fulfilled."""
        return RegistrationError(
            kind=self._kind, tag=self._tag, function=self.name, where=self.where, constraint=constraint
        )

    def check_first(self, name: str) -> inspect.Parameter:
        """Check that the first parameter has this name and no default."""
        first = next(iter(self._signature.parameters.values()), None)
        if first is None:
            raise self.refusal(f"its first parameter must be called {name!r}, it has no parameters")
        if first.name != name or first.kind in (first.VAR_POSITIONAL, first.VAR_KEYWORD):
            raise self.refusal(f"its first parameter must be called {name!r}, it is {str(first).split(':')[0]!r}")
        if first.default is not first.empty:
            raise self.refusal(f"its parameter {name!r} must be mandatory, it has the default {first.default!r}")
        return first

    def check_rest(self) -> dict[str, Any]:
        """All other parameters have defaults, can be named, and can be written as JSON; give the defaults."""
        defaults: dict[str, Any] = {}
        for parameter in list(self._signature.parameters.values())[1:]:
            shown = str(parameter).split(":")[0].split("=")[0].strip()
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise self.refusal(f"every parameter after the first needs a name and a default, {shown!r} has neither")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise self.refusal(f"its parameter {shown!r} can be given by position only, it must have a usable name")
            if parameter.default is parameter.empty:
                raise self.refusal(f"its parameter {shown!r} needs a default, only the first one is mandatory")
            self._check_json(parameter)
            defaults[parameter.name] = parameter.default
        return defaults

    def _check_json(self, parameter: inspect.Parameter) -> None:
        try:
            json.dumps(parameter.default, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.refusal(
                f"the default of its parameter {parameter.name!r} cannot be written as JSON ({error})"
            ) from error
        try:
            annotation = self._resolve(parameter.annotation)
        except _Unresolvable:
            return  # known to type checkers only; its default has just been shown to be JSON
        if not _may_be_json(annotation):
            raise self.refusal(
                f"its parameter {parameter.name!r} is annotated {_show(annotation)}, which no JSON value can be"
            )

    def data_type(self, annotation: object, what: str) -> object:
        """Resolve the annotation of the data that passes from loader to model."""
        if annotation is inspect.Parameter.empty:
            raise self.refusal(f"{what} must be annotated")
        try:
            return comparable(self._resolve(annotation))
        except _Unresolvable as error:
            raise self.refusal(
                f"{what} is annotated {annotation!r}, which cannot be resolved ({error}); "
                "import it at the top of the module, not for type checkers only"
            ) from error

    def check_return_type(self) -> object:
        """Check that a loader says what it returns."""
        data_type = self.data_type(self._signature.return_annotation, "its return type")
        if data_type is type(None):
            raise self.refusal("its return type must be what it loads, it is annotated None")
        return data_type

    def check_returns_mli(self) -> None:
        """Check that a model says that it returns a MachineLearningInterface."""
        annotation = self._signature.return_annotation
        self.data_type(annotation, "its return type")
        if not _is_mli(resolved := self._resolve(annotation)):
            raise self.refusal(
                f"its return type must be MachineLearningInterface or a subclass of it, it is {_show(resolved)}"
            )

    def check_not_taken(self, known: Registered | None) -> None:
        """Check that no other function has the name; registering a function anew, as a reload does, is fine."""
        if known is None or known.function is self.function:
            return
        old = _innermost(known.function)
        same_name = getattr(old, "__qualname__", None) == getattr(self._inner, "__qualname__", 0)
        same_home = getattr(old, "__module__", None) == getattr(self._inner, "__module__", 0) or (
            _file_of(old) == _file_of(self._inner)
        )
        spec = self.spec
        if not (same_name and same_home) or (spec is not None and spec is known.spec):
            name, where = describe(known.function)
            raise self.refusal(f"the name is already taken by {name} ({where})")

    @property
    def spec(self) -> object:
        """The import spec of the module that defines the function; None in ``__main__``."""
        return _globals_of(self._inner).get("__spec__")

    def _resolve(self, annotation: object) -> object:
        """Evaluate an annotation, also one that ``from __future__ import annotations`` left as a string."""
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        try:
            return typing.get_type_hints(holder, globalns=dict(_globals_of(self._inner)))["it"]
        except Exception as error:  # an annotation is any expression, so evaluating it raises anything
            raise _Unresolvable(f"{type(error).__name__}: {error}") from error


class _Unresolvable(Exception):  # noqa: N818 - internal, never seen
    pass


def describe(function: object) -> tuple[str, str]:
    """Name a function and say where it is defined, also when it is wrapped or partial."""
    inner = _innermost(function)
    module = getattr(inner, "__module__", None)
    name = getattr(inner, "__qualname__", None) or repr(inner)
    code = getattr(inner, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "no source"
    return (f"{module}.{name}" if module else name), where


def comparable(annotation: object) -> object:
    """Bring a type to one form, so that ``Tuple[A, B]`` equals ``tuple[A, B]`` and ``Optional[A]`` ``A | None``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None:
        return type(None)
    if origin is typing.Annotated:
        return comparable(args[0])
    if origin in (typing.Union, types.UnionType):
        return typing.Union, frozenset(comparable(arg) for arg in args)
    if origin is typing.Literal:
        return origin, args
    if origin is None:
        return annotation
    return origin, tuple(tuple(map(comparable, arg)) if isinstance(arg, list) else comparable(arg) for arg in args)


def _is_mli(annotation: object) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(_is_mli(arg) for arg in typing.get_args(annotation))
    if origin is typing.Annotated:
        return _is_mli(typing.get_args(annotation)[0])
    kind = origin or annotation
    return isinstance(kind, type) and issubclass(kind, MachineLearningInterface)


def _may_be_json(annotation: object) -> bool:
    """Tell whether a JSON value can be of this type; True when that cannot be known."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_may_be_json(arg) for arg in args if arg is not type(None))
    kind = origin or annotation
    if kind in _JSON_ABSTRACT or kind is object or kind is inspect.Parameter.empty:
        return True
    if not isinstance(kind, type):
        return True  # Any, Literal, a type variable, ...
    return issubclass(kind, (*_JSON_TYPES, DiffPrivConfig))


def privacy_from(given: Mapping[str, Any]) -> DiffPrivConfig:
    """Read a `DiffPrivConfig` from a task's JSON.

    Raises
    ------
    ValueError
        A member is missing, unknown or out of its range; the message names it.
    """
    members = [each.name for each in fields(DiffPrivConfig)]
    if set(given) != set(members):
        raise ValueError(f"{PRIVACY}: {', '.join(sorted(given)) or 'nothing'} given, needed are {', '.join(members)}")
    try:
        return DiffPrivConfig(**given)
    except ValueError as error:
        raise ValueError(f"{PRIVACY}.{error}") from error


def _innermost(function: object) -> object:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif not hasattr(function, "__code__") and hasattr(type(function).__call__, "__code__"):
            return type(function).__call__
        else:
            return function


def _globals_of(function: object) -> Mapping[str, Any]:
    found = getattr(function, "__globals__", None)
    if found is None:
        found = vars(sys.modules.get(getattr(function, "__module__", ""), types.ModuleType("none")))
    return typing.cast("Mapping[str, Any]", found)


def _file_of(function: object) -> str | None:
    code = getattr(function, "__code__", None)
    return None if code is None else code.co_filename


def _show(annotation: object) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
