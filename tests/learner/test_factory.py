from __future__ import annotations

import functools
import importlib
import json
import sys
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collective_learner import (
    DefaultMliFactory,
    FactoryRegistry,
    MachineLearningInterface,
    RegistrationError,
    SetupRefusedError,
)


class Learner(MachineLearningInterface):
    def __init__(self, **got: Any) -> None:
        self.got = got

    def mli_propose_weights(self): ...
    def mli_test_weights(self, weights): ...
    def mli_accept_weights(self, weights): ...
    def mli_get_current_weights(self): ...
    def mli_get_current_model(self): ...


class Other(Learner):
    pass


if typing.TYPE_CHECKING:
    from nowhere import Unseen


def registry() -> type[FactoryRegistry]:
    class Fresh(FactoryRegistry):
        pass

    @Fresh.register_dataloader("DATA")
    def data(location: str, ratio: float = 0.5, options: Optional[dict] = None) -> typing.Tuple[typing.List[int], int]:  # noqa: UP006, UP045
        return [len(location)], int(ratio * 100)

    @Fresh.register_dataloader("TEXT")
    def text(location: str) -> str:
        return location

    @Fresh.register_model_architecture("MODEL", ["DATA"])
    def model(data_loaders: tuple[list[int], int], rate: float = 0.1, deep: Union[int, None] = None) -> Learner:  # noqa: UP007
        return Learner(data=data_loaders, rate=rate, deep=deep)

    return Fresh


def first_other(path) -> int: ...
def first_defaulted(location="here") -> int: ...
def no_parameters() -> int: ...
def only_varargs(*location) -> int: ...
def rest_mandatory(location, ratio) -> int: ...
def rest_keyword_mandatory(location, *, ratio) -> int: ...
def rest_varargs(location, *more) -> int: ...
def rest_kwargs(location, **more) -> int: ...
def rest_positional(location, ratio=1, /) -> int: ...
def no_return(location): ...
def returns_none(location) -> None: ...
def returns_unseen(location) -> Unseen: ...
def returns_nonsense(location) -> 1 / 0: ...
def default_object(location, x=object()) -> int: ...  # noqa: B008
def default_set(location, x={1}) -> int: ...  # noqa: B006
def default_nan(location, x=float("nan")) -> int: ...
def annotated_callable(location, x: typing.Callable | None = None) -> int: ...
def annotated_bytes(location, x: Optional[bytes] = None) -> int: ...  # noqa: UP045
def annotated_path(location, x: Path | None = None) -> int: ...
async def not_plain(location) -> int: ...


@pytest.mark.parametrize(
    ("function", "constraint"),
    [
        (first_other, "first parameter must be called 'location', it is 'path'"),
        (no_parameters, "first parameter must be called 'location', it has no parameters"),
        (only_varargs, "first parameter must be called 'location'"),
        (first_defaulted, "'location' must be mandatory, it has the default 'here'"),
        (functools.partial(rest_kwargs, location="x"), "'location' must be mandatory"),
        (rest_mandatory, "'ratio' needs a default"),
        (rest_keyword_mandatory, "'ratio' needs a default"),
        (rest_varargs, r"'\*more' has neither"),
        (rest_kwargs, r"'\*\*more' has neither"),
        (rest_positional, "'ratio' can be given by position only"),
        (no_return, "return type must be annotated"),
        (returns_none, "return type must be what it loads"),
        (returns_unseen, "'Unseen', which cannot be resolved .*NameError"),
        (returns_nonsense, "cannot be resolved .*ZeroDivisionError"),
        (default_object, "default of its parameter 'x' cannot be written as JSON"),
        (default_set, "default of its parameter 'x' cannot be written as JSON"),
        (default_nan, "default of its parameter 'x' cannot be written as JSON"),
        (annotated_callable, "'x' is annotated .*Callable.*, which no JSON value can be"),
        (annotated_bytes, "'x' is annotated .*bytes.*, which no JSON value can be"),
        (annotated_path, "'x' is annotated .*Path.*, which no JSON value can be"),
        (not_plain, "plain function"),
        (42, "a function is needed"),
    ],
)
def test_a_data_loader_that_breaks_a_constraint_is_refused_by_name(function: Any, constraint: str) -> None:
    fresh = registry()
    with pytest.raises(RegistrationError, match=constraint) as refused:
        fresh.register_dataloader("NEW")(function)
    assert "NEW" not in fresh.dataloaders
    error = refused.value
    inner = function.func if isinstance(function, functools.partial) else function
    if callable(inner):
        assert error.function.endswith(inner.__name__)
        assert error.function in str(error)
        assert error.where == f"{__file__}:{inner.__code__.co_firstlineno}"
        assert error.where in str(error)
    assert error.constraint in str(error)
    assert "data loader 'NEW'" in str(error)


def data_other(loader: tuple[list[int], int]) -> Learner: ...
def data_defaulted(data_loaders: tuple[list[int], int] = ((), 1)) -> Learner: ...
def data_bare(data_loaders) -> Learner: ...
def data_wrong(data_loaders: tuple[list[float], int]) -> Learner: ...
def data_optional(data_loaders: Optional[tuple[list[int], int]]) -> Learner: ...  # noqa: UP045
def data_unseen(data_loaders: Unseen) -> Learner: ...
def model_mandatory(data_loaders: tuple[list[int], int], rate) -> Learner: ...
def model_kwargs(data_loaders: tuple[list[int], int], **rate) -> Learner: ...
def model_default(data_loaders: tuple[list[int], int], rate=b"1") -> Learner: ...
def model_bare(data_loaders: tuple[list[int], int]): ...
def model_int(data_loaders: tuple[list[int], int]) -> int: ...
def model_optional(data_loaders: tuple[list[int], int]) -> Learner | None: ...
def model_union(data_loaders: tuple[list[int], int]) -> Union[Learner, int]: ...  # noqa: UP007
def model_good(data_loaders: tuple[list[int], int]) -> Learner: ...


@pytest.mark.parametrize(
    ("function", "loaders", "constraint"),
    [
        (data_other, ["DATA"], "first parameter must be called 'data_loaders', it is 'loader'"),
        (data_defaulted, ["DATA"], "'data_loaders' must be mandatory"),
        (data_bare, ["DATA"], "'data_loaders' must be annotated"),
        (data_wrong, ["DATA"], r"returns: tuple\[list\[int\], int\], it is annotated tuple\[list\[float\], int\]"),
        (data_optional, ["DATA"], "must be annotated with what the data loader 'DATA' returns"),
        (data_unseen, ["DATA"], "cannot be resolved"),
        (model_good, ["DATA", "TEXT"], "'TEXT' returns: str"),
        (model_mandatory, ["DATA"], "'rate' needs a default"),
        (model_kwargs, ["DATA"], r"'\*\*rate' has neither"),
        (model_default, ["DATA"], "'rate' cannot be written as JSON"),
        (model_bare, ["DATA"], "return type must be annotated"),
        (model_int, ["DATA"], "MachineLearningInterface or a subclass of it, it is int"),
        (model_optional, ["DATA"], "MachineLearningInterface or a subclass"),
        (model_union, ["DATA"], "MachineLearningInterface or a subclass"),
        (model_good, ["LATER"], "'LATER' must be registered before it; registered are DATA, TEXT"),
        (model_good, "DATA", "a list of at least one name, they are 'DATA'"),
        (model_good, [], "a list of at least one name"),
    ],
)
def test_a_model_that_breaks_a_constraint_is_refused_by_name(function: Any, loaders: Any, constraint: str) -> None:
    fresh = registry()
    with pytest.raises(RegistrationError, match=constraint) as refused:
        fresh.register_model_architecture("NEW", loaders)(function)
    assert "NEW" not in fresh.model_architectures
    assert refused.value.function.endswith(function.__name__)
    assert f"{__file__}:{function.__code__.co_firstlineno}" in str(refused.value)
    assert "model 'NEW'" in str(refused.value)


@pytest.mark.parametrize("tag", ["", "  ", None, 3])
def test_a_tag_is_a_text(tag: Any) -> None:
    with pytest.raises(RegistrationError, match="tag must be a string"):
        registry().register_dataloader(tag)(lambda location: 1)


def test_a_decorator_without_its_parentheses_says_so() -> None:
    with pytest.raises(RegistrationError, match=r"model_good .*with a tag"):
        registry().register_dataloader(model_good)  # type: ignore[type-var]  # just that is refused


def union_a(location) -> Union[int, str]: ...  # noqa: UP007
def union_b(data_loaders: str | int) -> Learner: ...
def optional_a(location) -> Optional[list[str]]: ...  # noqa: UP045
def optional_b(data_loaders: list[str] | None) -> Learner: ...
def annotated_a(location) -> typing.Annotated[int, "seconds"]: ...
def annotated_b(data_loaders: int) -> typing.Annotated[Learner, "x"]: ...
def text_a(location) -> dict[str, list[int]]: ...
def text_b(data_loaders: typing.Dict[str, typing.List[int]]) -> Learner | Other: ...  # noqa: UP006
def unseen_rest(location, x: Unseen | None = None) -> int: ...
def keyword_first(*, location, ratio=1) -> int: ...


@pytest.mark.parametrize(
    ("loader", "model"),
    [(union_a, union_b), (optional_a, optional_b), (annotated_a, annotated_b), (text_a, text_b)],
)
def test_one_type_written_in_two_ways_is_one_type(loader: Callable[..., Any], model: Callable[..., Any]) -> None:
    fresh = registry()
    assert fresh.register_dataloader("A")(loader) is loader
    assert fresh.register_model_architecture("B", ["A"])(model) is model
    assert DefaultMliFactory(fresh).get_compatibilities()["B"] == {"A"}


def test_what_is_not_needed_need_not_be_resolved() -> None:
    fresh = registry()
    fresh.register_dataloader("A")(unseen_rest)
    assert fresh.dataloaders["A"].defaults == {"x": None}


def test_partials_and_keyword_only_parameters_are_called_as_they_want() -> None:
    fresh = registry()

    def load(location, ratio=1, *, base=2) -> str:
        return f"{location}-{ratio}-{base}"

    fresh.register_dataloader("P")(functools.partial(load, base=5))
    fresh.register_dataloader("K")(keyword_first)
    assert fresh.dataloaders["P"].defaults == {"ratio": 1, "base": 5}
    assert fresh.dataloaders["P"].call("x", {"ratio": 7}) == "x-7-5"
    assert fresh.dataloaders["K"].call("x", {}) is None


def test_a_name_belongs_to_one_function_and_a_reload_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = registry()
    (tmp_path / "reloaded_tasks.py").write_text(
        textwrap.dedent("""
            import registry_of_test
            @registry_of_test.it.register_dataloader("R")
            def load(location) -> int:
                return 1
        """)
    )
    (tmp_path / "twice_tasks.py").write_text(
        textwrap.dedent("""
            import registry_of_test
            @registry_of_test.it.register_dataloader("T")
            def load(location) -> int:
                return 1
            @registry_of_test.it.register_dataloader("T")
            def load(location) -> int:
                return 2
        """)
    )
    holder = type(sys)("registry_of_test")
    vars(holder)["it"] = fresh
    monkeypatch.setitem(sys.modules, "registry_of_test", holder)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("reloaded_tasks")
    old = fresh.dataloaders["R"].function
    importlib.reload(module)
    assert fresh.dataloaders["R"].function is module.load is not old
    fresh.register_dataloader("R")(module.load)
    with pytest.raises(RegistrationError, match=r"already taken by reloaded_tasks.load \(.*reloaded_tasks"):
        fresh.register_dataloader("R")(unseen_rest)
    with pytest.raises(RegistrationError, match=r"twice_tasks.load .* already taken by twice_tasks.load"):
        importlib.import_module("twice_tasks")
    assert fresh.dataloaders["R"].function is module.load


def test_subclasses_have_registries_of_their_own() -> None:
    assert "DATA" in registry().dataloaders
    assert "DATA" not in FactoryRegistry.dataloaders


def test_defaults_are_merged_with_what_is_given() -> None:
    factory = DefaultMliFactory(registry())
    assert factory.get_models() == {"MODEL": {"rate": 0.1, "deep": None}}
    assert factory.get_dataloaders() == {"DATA": {"ratio": 0.5, "options": None}, "TEXT": {}}
    assert factory.get_compatibilities() == {"MODEL": {"DATA"}}
    learner = factory.get_mli("MODEL", '{"rate": 3}', "DATA", '{"location": "abc", "ratio": 0.25}')
    assert isinstance(learner, Learner)
    assert learner.got == {"data": ([3], 25), "rate": 3, "deep": None}
    learner = factory.get_mli("MODEL", "", "DATA", '{"location": "abc"}')
    assert isinstance(learner, Learner)
    assert learner.got == {"data": ([3], 50), "rate": 0.1, "deep": None}


GOOD = '{"location": "x"}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("NONE", "{}", "DATA", GOOD), "no model 'NONE'; registered are MODEL"),
        (("MODEL", "{}", "NONE", GOOD), "no data loader 'NONE'; registered are DATA, TEXT"),
        (("MODEL", "{}", "TEXT", GOOD), "'MODEL' does not work with the data loader 'TEXT'; it works with DATA"),
        (("MODEL", '{"raet": 1}', "DATA", GOOD), "no parameter 'raet'; it has rate, deep"),
        (("MODEL", "{}", "DATA", '{"location": "", "rate": 1}'), "no parameter 'rate'; it has location, ratio"),
        (("MODEL", '{"data_loaders": 1}', "DATA", GOOD), "no parameter 'data_loaders'"),
        (("MODEL", "{}", "DATA", "{}"), "needs the parameter 'location'"),
        (("MODEL", "{}", "DATA", ""), "needs the parameter 'location'"),
        (("MODEL", "[]", "DATA", GOOD), "must be a JSON object"),
        (("MODEL", "null", "DATA", GOOD), "must be a JSON object"),
        (("MODEL", "{", "DATA", GOOD), "not JSON"),
        (("MODEL", '{"rate": NaN}', "DATA", GOOD), "NaN is no JSON number"),
        (("MODEL", '{"rate": 1, "rate": 2}', "DATA", GOOD), "'rate' stands there twice"),
        (("MODEL", "[" * 100_000, "DATA", GOOD), "not JSON"),
        (("MODEL", '{"rate": ' + "9" * 5000 + "}", "DATA", GOOD), "not JSON"),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is(arguments: tuple[str, str, str, str], message: str) -> None:
    with pytest.raises(SetupRefusedError, match=message):
        DefaultMliFactory(registry()).get_mli(*arguments)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(rate=JSON, extra=st.dictionaries(st.text(), JSON, max_size=3))
def test_any_json_arrives_as_it_was_sent_and_any_other_key_is_refused(rate: Any, extra: dict[str, Any]) -> None:
    factory = DefaultMliFactory(registry())
    given_parameters = {**extra, "rate": rate}
    text = json.dumps(given_parameters)
    if set(extra) <= {"rate", "deep"}:
        learner = factory.get_mli("MODEL", text, "DATA", GOOD)
        assert isinstance(learner, Learner)
        assert learner.got["rate"] == rate
    else:
        with pytest.raises(SetupRefusedError, match="no parameter"):
            factory.get_mli("MODEL", text, "DATA", GOOD)


def test_a_model_that_returns_something_else_is_a_failure() -> None:
    fresh = registry()
    fresh.register_model_architecture("NONE", ["DATA"])(model_good)
    with pytest.raises(TypeError, match="'NONE' returned NoneType"):
        DefaultMliFactory(fresh).get_mli("NONE", "{}", "DATA", GOOD)
