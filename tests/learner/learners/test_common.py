"""Matching weights that arrive, strictness of votes, fingerprints, checks of parameters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collective_learner.learners.checks import number, share, whole_number
from collective_learner.learners.common import derive_seed, fingerprint, has_nan, is_better, match_weights
from collective_learner.mli import Weights

OWN = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32), "steps": np.array(0, np.int64)}


def test_weights_match_by_name_in_any_order_and_as_a_list() -> None:
    arrays = {"steps": np.array(5), "b": np.ones(3, np.float32), "w": np.ones((2, 3), np.float32)}
    matched = match_weights(Weights(arrays), OWN)
    assert list(matched) == list(OWN)
    assert matched["w"] is arrays["w"]
    listed = match_weights(Weights([arrays["w"], arrays["b"], arrays["steps"]]), OWN)
    assert listed["b"] is arrays["b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "missing 'b'"),
        ({"extra": np.zeros(1)}, "unknown 'extra'"),
        ({"w": np.zeros((3, 2), np.float32)}, r"'w' has shape \(3, 2\), the model's has \(2, 3\)"),
        ({"b": np.zeros(3, np.float64)}, "'b' has type float64, the model's has float32"),
        ({"steps": np.zeros(1, np.int64)}, r"'steps' has shape \(1,\)"),
    ],
)
def test_weights_that_do_not_match_are_refused_by_name(change: dict, message: str) -> None:
    given = {name: array for name, array in {**OWN, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        match_weights(Weights(given), OWN)


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tensors given, the model has 3"):
        match_weights(Weights([OWN["w"], OWN["b"]]), OWN)


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.booleans())
def test_a_vote_is_strict_and_nan_never_wins(new: float, old: float, minimise: bool) -> None:
    won = is_better(new, old, minimise=minimise)
    assert not (won and is_better(old, new, minimise=minimise))
    assert not is_better(new, new, minimise=minimise)
    if math.isnan(new):
        assert not won
    elif math.isnan(old):
        assert won


def test_a_fingerprint_tells_names_types_shapes_and_values_apart() -> None:
    same = fingerprint({"a": np.arange(6.0).reshape(2, 3)})
    assert same == fingerprint({"a": np.asfortranarray(np.arange(6.0).reshape(2, 3))})
    others = [
        {"b": np.arange(6.0).reshape(2, 3)},
        {"a": np.arange(6.0)},
        {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3)},
        {"a": np.arange(1.0, 7.0).reshape(2, 3)},
        {"a": np.array(3.0)},
    ]
    assert len({same, *map(fingerprint, others)}) == 6


def test_seeds_differ_by_every_part() -> None:
    seeds = {derive_seed(1, b"x"), derive_seed(2, b"x"), derive_seed(1, b"y"), derive_seed(b"1x"), derive_seed(1)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_nan_is_found_in_floats_only() -> None:
    assert has_nan({"i": np.array([1]), "f": np.array([1.0, math.nan], np.float16)})
    assert not has_nan({"i": np.array([1]), "f": np.array([math.inf]), "b": np.array([True])})


@pytest.mark.parametrize(
    "check",
    [
        lambda: whole_number("it", True, at_least=0),
        lambda: whole_number("it", 1.0, at_least=0),
        lambda: whole_number("it", 0, at_least=1),
        lambda: number("it", "3", above=0),
        lambda: number("it", 0, above=0),
        lambda: number("it", -1, at_least=0),
        lambda: number("it", math.inf, above=0),
        lambda: share("it", 1.1),
        lambda: share("it", math.nan),
        lambda: share("it", 0, open_ended=True),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(check) -> None:
    with pytest.raises(ValueError, match=r"^it: .* number .* is needed"):
        check()


def test_parameters_in_range_pass() -> None:
    assert whole_number("it", 1, at_least=1) == 1
    assert number("it", 0, at_least=0) == 0
    assert number("it", 1e-9, above=0) == 1e-9
    assert share("it", 1) == 1
