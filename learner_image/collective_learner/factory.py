"""Which models and data loaders a learner offers, and how a task's names and JSON become a learner.

Everything that a task asks for is checked against the registry before any data is loaded: a misspelt parameter must
not run for an hour with its default.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar

from collective_learner.mli import MachineLearningInterface
from collective_learner.registration import PRIVACY, Candidate, Registered, RegistrationError, describe, privacy_from
from collective_learner.wire.methods import INTERFACE_VERSION

_Function = TypeVar("_Function", bound=Callable[..., Any])


class SetupRefusedError(ValueError):
    """What was asked for is not offered; the message names what is."""


class MliFactory(abc.ABC):
    """Makes learners from names and JSON; the server asks one what it offers, and for what a task wants."""

    @abc.abstractmethod
    def get_version(self) -> str:
        """Return the version of the interface, as QueryVersion answers it."""

    @abc.abstractmethod
    def get_models(self) -> dict[str, dict[str, Any]]:
        """Return the default parameters of each model, by its name."""

    @abc.abstractmethod
    def get_dataloaders(self) -> dict[str, dict[str, Any]]:
        """Return the default parameters of each data loader, by its name."""

    @abc.abstractmethod
    def get_compatibilities(self) -> dict[str, set[str]]:
        """Return the names of the data loaders that each model works with, by the model's name."""

    @abc.abstractmethod
    def get_mli(
        self, model_name: str, model_params: str, dataloader_name: str, dataset_params: str
    ) -> MachineLearningInterface:
        """Load the data and build the model.

        Parameters
        ----------
        model_name, dataloader_name
            Two of the names above that go together.
        model_params, dataset_params
            JSON objects; what they leave out has its default.

        Raises
        ------
        SetupRefusedError
            A name, a pair or a parameter is not offered.
        """


class FactoryRegistry:
    """The models and data loaders that this process knows, filled by decorators when modules are imported.

    One registry serves the process. A subclass has its own, empty at first.
    """

    dataloaders: ClassVar[dict[str, Registered]] = {}
    model_architectures: ClassVar[dict[str, Registered]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.dataloaders, cls.model_architectures = {}, {}

    @classmethod
    def register_dataloader(cls, name: str) -> Callable[[_Function], _Function]:
        """Register a function as a data loader.

        The function's first parameter is called ``location`` and is mandatory; all others have defaults; its return
        type is annotated; its arguments can be written as JSON.

        Parameters
        ----------
        name
            How tasks call it.

        Raises
        ------
        RegistrationError
            When the decorated function is not so, or another one has the name.
        """

        def register(function: _Function) -> _Function:
            candidate = Candidate(kind="data loader", tag=name, function=function)
            candidate.check_first("location")
            defaults = candidate.check_rest()
            data_type = candidate.check_return_type()
            candidate.check_not_taken(cls.dataloaders.get(candidate.tag))
            cls.dataloaders[candidate.tag] = Registered(
                tag=candidate.tag, function=function, defaults=defaults, data_type=data_type, spec=candidate.spec
            )
            return function

        return _decorator("data loader", name, register)

    @classmethod
    def register_model_architecture(cls, name: str, data_loaders: Sequence[str]) -> Callable[[_Function], _Function]:
        """Register a function as a model.

        The function's first parameter is called ``data_loaders``, is mandatory, and is annotated with the very type
        that its data loaders return; all others have defaults; it returns a MachineLearningInterface or a subclass;
        its data loaders are registered already; its arguments can be written as JSON.

        Parameters
        ----------
        name
            How tasks call it.
        data_loaders
            The names of the data loaders that it works with, at least one.

        Raises
        ------
        RegistrationError
            When the decorated function is not so, or another one has the name.
        """

        def register(function: _Function) -> _Function:
            candidate = Candidate(kind="model", tag=name, function=function)
            first = candidate.check_first("data_loaders")
            defaults = candidate.check_rest()
            candidate.check_returns_mli()
            data_type = candidate.data_type(first.annotation, "its parameter 'data_loaders'")
            cls._check_loaders(candidate, data_loaders, data_type)
            candidate.check_not_taken(cls.model_architectures.get(candidate.tag))
            cls.model_architectures[candidate.tag] = Registered(
                tag=candidate.tag,
                function=function,
                defaults=defaults,
                data_type=data_type,
                data_loaders=frozenset(data_loaders),
                spec=candidate.spec,
            )
            return function

        return _decorator("model", name, register)

    @classmethod
    def _check_loaders(cls, candidate: Candidate, tags: Sequence[str], data_type: object) -> None:
        if isinstance(tags, str) or not isinstance(tags, Sequence | set | frozenset) or not tags:
            raise candidate.refusal(f"its data loaders must be a list of at least one name, they are {tags!r}")
        for tag in tags:
            loader = cls.dataloaders.get(tag)
            if loader is None:
                raise candidate.refusal(
                    f"its data loader {tag!r} must be registered before it; {_registered(cls.dataloaders)}"
                )
            if loader.data_type != data_type:
                raise candidate.refusal(
                    f"its parameter 'data_loaders' must be annotated with what the data loader {tag!r} returns: "
                    f"{_show(loader.data_type)}, it is annotated {_show(data_type)}"
                )


class DefaultMliFactory(MliFactory):
    """Offers what is registered.

    Parameters
    ----------
    registry
        Where models and data loaders are registered.
    """

    def __init__(self, registry: type[FactoryRegistry] = FactoryRegistry) -> None:
        self._registry = registry

    def get_version(self) -> str:
        """Return the version of the interface."""
        return INTERFACE_VERSION

    def get_models(self) -> dict[str, dict[str, Any]]:
        """Return the default parameters of each registered model."""
        return {tag: dict(item.defaults) for tag, item in self._registry.model_architectures.items()}

    def get_dataloaders(self) -> dict[str, dict[str, Any]]:
        """Return the default parameters of each registered data loader."""
        return {tag: dict(item.defaults) for tag, item in self._registry.dataloaders.items()}

    def get_compatibilities(self) -> dict[str, set[str]]:
        """Return the data loaders of each registered model."""
        return {tag: set(item.data_loaders) for tag, item in self._registry.model_architectures.items()}

    def get_mli(
        self, model_name: str, model_params: str, dataloader_name: str, dataset_params: str
    ) -> MachineLearningInterface:
        """Check names, pair and parameters, then load the data and build the model."""
        model = _find(self._registry.model_architectures, "model", model_name)
        loader = _find(self._registry.dataloaders, "data loader", dataloader_name)
        if dataloader_name not in model.data_loaders:
            raise SetupRefusedError(
                f"the model {model_name!r} does not work with the data loader {dataloader_name!r}; "
                f"it works with {', '.join(sorted(model.data_loaders))}"
            )
        model_given = _parse(f"the parameters of the model {model_name!r}", model_params)
        _refuse_unknown(f"the model {model_name!r}", model_given, allowed=[*model.defaults])
        loader_given = _parse(f"the parameters of the data loader {dataloader_name!r}", dataset_params)
        _refuse_unknown(f"the data loader {dataloader_name!r}", loader_given, allowed=["location", *loader.defaults])
        if "location" not in loader_given:
            raise SetupRefusedError(f"the data loader {dataloader_name!r} needs the parameter 'location'")
        location = loader_given.pop("location")
        for given in (model_given, loader_given):
            _check_privacy(given)
        # What is not given is left to the functions' own defaults: exactly those that are advertised.
        learner = model.call(loader.call(location, loader_given), model_given)
        if not isinstance(learner, MachineLearningInterface):
            raise TypeError(
                f"the model {model_name!r} returned {type(learner).__qualname__}, not a MachineLearningInterface"
            )
        return learner


def _decorator(kind: str, name: object, register: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    if callable(name):  # the decorator was written without its parentheses
        function, where = describe(name)
        raise RegistrationError(
            kind=kind, tag=None, function=function, where=where, constraint="write the decorator with a tag"
        )
    return register


def _find(items: Mapping[str, Registered], kind: str, name: str) -> Registered:
    found = items.get(name)
    if found is None:
        raise SetupRefusedError(f"there is no {kind} {name!r}; {_registered(items)}")
    return found


def _parse(what: str, text: str) -> dict[str, Any]:
    if not text.strip():
        return {}  # a peer that leaves the field out
    try:
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SetupRefusedError(f"{what} are not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise SetupRefusedError(f"{what} must be a JSON object, they are {text.strip()[:40]!r}")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _refuse_unknown(what: str, given: Mapping[str, Any], *, allowed: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise SetupRefusedError(
            f"{what} has no parameter {', '.join(map(repr, unknown))}; it has {', '.join(allowed) or 'none'}"
        )


def _check_privacy(given: Mapping[str, Any]) -> None:
    if isinstance(given.get(PRIVACY), dict):
        try:
            privacy_from(given[PRIVACY])
        except ValueError as error:
            raise SetupRefusedError(str(error)) from error


def _registered(items: Mapping[str, Registered]) -> str:
    return f"registered are {', '.join(sorted(items)) or 'none'}"


def _show(data_type: object) -> str:
    if isinstance(data_type, type):
        return data_type.__qualname__
    if isinstance(data_type, tuple) and len(data_type) == 2:
        origin, args = data_type
        name = getattr(origin, "__qualname__", None) or str(origin).rpartition(".")[2]
        return f"{name}[{', '.join(sorted(map(_show, args)) if isinstance(args, frozenset) else map(_show, args))}]"
    return str(data_type)
