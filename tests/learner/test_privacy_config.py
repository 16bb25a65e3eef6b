"""The privacy that a task asks for: out of range it is refused before anything is loaded."""

from __future__ import annotations

import json
import math

import pytest

from collective_learner import (
    DefaultMliFactory,
    DiffPrivConfig,
    FactoryRegistry,
    MachineLearningInterface,
    SetupRefusedError,
)

GOOD = {"target_epsilon": 4, "target_delta": 1e-5, "max_grad_norm": 1.0, "noise_multiplier": 1.3}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", True, None])
def test_a_number_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: {value!r}, a number above 0"):
        DiffPrivConfig(**{**GOOD, name: value})


def test_delta_is_a_probability() -> None:
    with pytest.raises(ValueError, match="target_delta: 1, a number above 0 and below 1 is needed"):
        DiffPrivConfig(**{**GOOD, "target_delta": 1})
    assert DiffPrivConfig(4, 1e-5, 1.0, 1.3) == DiffPrivConfig(**GOOD)


class Registry(FactoryRegistry):
    """Of this test."""


LOADED: list[str] = []


@Registry.register_dataloader("DATA")
def data(location: str) -> float:
    LOADED.append(location)
    return float(location)


class Told(MachineLearningInterface):
    """Knows its privacy, and nothing else."""

    config: DiffPrivConfig | None
    mli_propose_weights = mli_get_current_weights = mli_get_current_model = lambda self: None
    mli_test_weights = mli_accept_weights = lambda self, weights: None


@Registry.register_model_architecture("MODEL", ["DATA"])
def model(data_loaders: float, diff_priv_config: DiffPrivConfig | None = None) -> Told:
    learner = Told()
    learner.config = diff_priv_config
    return learner


def made(**parameters: object) -> Told:
    return DefaultMliFactory(Registry).get_mli("MODEL", json.dumps(parameters), "DATA", '{"location": "3"}')


def test_an_object_in_the_task_is_a_config_in_the_function() -> None:
    assert made(diff_priv_config=GOOD).config == DiffPrivConfig(**GOOD)
    assert made(diff_priv_config=None).config is None
    assert made().config is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({**GOOD, "noise_multiplier": 0}, r"^diff_priv_config\.noise_multiplier: 0, a number above 0 is needed"),
        ({**GOOD, "epsilon": 1}, "^diff_priv_config: epsilon, .* given, needed are target_epsilon, target_delta"),
        ({}, "^diff_priv_config: nothing given, needed are"),
    ],
)
def test_what_is_no_config_is_refused_before_data_is_loaded(given: dict[str, object], told: str) -> None:
    LOADED.clear()
    with pytest.raises(SetupRefusedError, match=told):
        made(diff_priv_config=given)
    assert LOADED == []
