"""The arithmetic of averaging, against numpy on whole arrays and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from collective_coordinator.aggregation.reduce import NotFiniteError, decode, encode, fold, mean, median, trimmed_mean
from collective_coordinator.aggregation.server import ServerOptimizer

FLOATS = st.floats(-1e6, 1e6, width=32)


def columns(learners: int = 5) -> st.SearchStrategy[np.ndarray]:
    return npst.arrays(np.float32, st.tuples(st.just(learners), st.integers(1, 40)), elements=FLOATS)


def run(aggregation, rows: np.ndarray, dtype: str, weights=None) -> np.ndarray:
    weights = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=float)
    return np.frombuffer(fold(aggregation, [row.tobytes() for row in rows], dtype, weights), dtype=rows.dtype)


@given(columns(), npst.arrays(np.float64, 5, elements=st.floats(1, 1000)))
def test_mean_is_numpys_weighted_average(rows, weights):
    got = run(mean, rows, "F32", weights)
    np.testing.assert_allclose(got, np.average(rows.astype(np.float64), axis=0, weights=weights), rtol=1e-5, atol=1)


@given(st.integers(1, 6).flatmap(columns))
def test_median_is_numpys(rows):
    np.testing.assert_allclose(run(median, rows, "F32"), np.median(rows, axis=0), rtol=1e-6, atol=1e-30)


@given(columns(), st.sampled_from([0.1, 0.2, 0.3, 0.49]))
def test_trimmed_mean_ignores_one_hostile_learner(rows, share):
    hostile = rows.copy()
    hostile[2] = 1e30
    got = run(trimmed_mean(share), hostile, "F32")
    others = np.delete(rows, 2, axis=0)
    assert (got >= others.min(axis=0) - 1).all() and (got <= others.max(axis=0) + 1).all()


def test_trimmed_mean_by_hand():
    rows = np.array([[1], [2], [3], [4], [100]], dtype=np.float32)
    assert run(trimmed_mean(0.2), rows, "F32") == pytest.approx(3.0)
    assert run(trimmed_mean(0.0), rows, "F32") == pytest.approx(22.0)
    assert run(trimmed_mean(0.2), rows[:2], "F32") == pytest.approx(1.5)


def test_float64_keeps_its_precision():
    rows = np.array([[1.0], [1.0 + 2**-50]])
    assert run(mean, rows, "F64") == 1.0 + 2**-51


def test_integers_round_to_the_nearest_and_booleans_follow_the_majority():
    assert run(mean, np.array([[3, 10], [4, 11], [4, 12]]), "I64").tolist() == [4, 11]
    assert run(mean, np.array([[1], [2]]), "I64").tolist() == [2]
    assert run(mean, np.array([[True, True, False], [True, False, False]]), "BOOL").tolist() == [True, False, False]
    biggest = np.iinfo(np.int64).max
    assert run(mean, np.array([[biggest], [biggest]]), "I64")[0] > biggest - 2048


@given(npst.arrays(np.uint16, 20, elements=st.integers(0, 0x7F7F)))
def test_bfloat16_survives_decoding_and_encoding(bits):
    assert encode(decode(bits.tobytes(), "BF16"), "BF16") == bits.tobytes()


def test_bfloat16_rounds_to_nearest_even():
    one, next_up, after = 0x3F80, 0x3F81, 0x3F82
    rows = np.array([[one, next_up], [next_up, after]], dtype=np.uint16)
    assert run(mean, rows, "BF16").tolist() == [one, after]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F64", "F16"])
def test_a_learner_that_sends_no_number_is_named(poison, dtype):
    rows = np.ones((3, 7), dtype={"F32": np.float32, "F64": np.float64, "F16": np.float16}[dtype])
    rows[1, 4] = poison
    with pytest.raises(NotFiniteError) as error:
        run(mean, rows, dtype)
    assert error.value.args == (1,)


def test_huge_but_finite_numbers_are_no_suspects():
    rows = np.full((2, 3), 3e38, dtype=np.float32)
    assert run(median, rows, "F32") == pytest.approx([3e38] * 3, rel=1e-5)


def reference(optimizer: ServerOptimizer, rounds: list[tuple[float, float]]) -> float:
    """Reddi et al., algorithm 2, in scalars."""
    b1, b2, tau, lr = optimizer.beta1, optimizer.beta2, optimizer.tau, optimizer.learning_rate
    m, v, x = 0.0, tau**2, rounds[0][0]
    for _, average in rounds:
        d = average - x
        if optimizer.method == "AvgM":
            m = b1 * m + d
            x += lr * m
            continue
        m = b1 * m + (1 - b1) * d
        if optimizer.method == "Adagrad":
            v = v + d * d
        elif optimizer.method == "Adam":
            v = b2 * v + (1 - b2) * d * d
        else:
            v = v - (1 - b2) * d * d * np.sign(v - d * d)
        x += lr * m / (np.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("method", ["AvgM", "Adagrad", "Adam", "Yogi"])
def test_server_optimizers_follow_the_paper(method):
    optimizer = ServerOptimizer(method=method, learning_rate=0.1)
    current, state = np.array([0.5], dtype=np.float32), optimizer.initial(1)
    rounds = [(0.5, 0.6), (0.5, 0.4), (0.5, 0.9), (0.5, 0.9)]
    for _, average in rounds:
        current, state = optimizer.step(current, np.array([average], dtype=np.float32), state)
        assert len(state) == optimizer.slots and current.dtype == np.float32
    assert current[0] == pytest.approx(reference(optimizer, rounds), rel=1e-4)


def test_momentum_of_zero_and_a_rate_of_one_is_plain_averaging():
    optimizer = ServerOptimizer(method="AvgM", learning_rate=1.0, beta1=0.0)
    current, average = np.array([1.0, 2.0], dtype=np.float32), np.array([3.0, 1.0], dtype=np.float32)
    moved, _ = optimizer.step(current, average, optimizer.initial(2))
    assert moved.tolist() == [3.0, 1.0]
