from __future__ import annotations

import numpy as np
import pytest

from collective_learner.export.meaning import Meaning, tell


def test_logits_become_a_class_and_its_probability() -> None:
    (row,) = tell(np.array([[0.0, np.log(3.0)]], dtype=np.float32), Meaning.LOGITS)
    assert row["class"] == 1
    assert row["probability"] == pytest.approx(0.75)


def test_large_logits_do_not_overflow() -> None:
    assert tell(np.array([[1e4, -1e4]]), Meaning.LOGITS) == [{"class": 0, "probability": 1.0}]
    assert [row["class"] for row in tell(np.array([[1e4], [-1e4]]), Meaning.LOGIT)] == [1, 0]


@pytest.mark.parametrize(
    ("meaning", "outputs", "told"),
    [
        (Meaning.PROBABILITIES, [[0.2, 0.8]], {"class": "b", "probability": 0.8}),
        (Meaning.LOG_PROBABILITIES, [[np.log(0.8), np.log(0.2)]], {"class": "a", "probability": pytest.approx(0.8)}),
        (Meaning.PROBABILITY, [[0.25]], {"class": "a", "probability": 0.75}),
        (Meaning.LOGIT, [0.0], {"class": "a", "probability": 0.5}),
        (Meaning.SCORES, [[-3.0, 3.0]], {"class": "b", "score": 3.0}),
        (Meaning.VALUES, [[2.5]], {"value": 2.5}),
        (Meaning.VALUES, [[2.5, 1.0]], {"value": [2.5, 1.0]}),
        (Meaning.LOGITS, [[2.5]], {"value": 2.5}),
        (Meaning.PROBABILITY, [[0.25, 0.5]], {"value": [0.25, 0.5]}),
        (Meaning.LOGITS, [[[1.0], [2.0]]], {"value": [[1.0], [2.0]]}),
    ],
)
def test_a_row_is_told_by_what_it_means(meaning: Meaning, outputs: list, told: dict) -> None:
    assert tell(np.array(outputs), meaning, ["a", "b"]) == [told]
