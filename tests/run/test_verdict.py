"""Whose logs a failure shows, and which of their lines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collective_operator.run.result import result_of
from collective_operator.run.verdict import crash_at_start, tails

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 3\n    raise OSError\nOSError: no such data\n'


def pods(logs: Path, **texts: tuple[str, int]) -> dict[str, Any]:
    found = {}
    for name, (text, deaths) in texts.items():
        stem = name.replace("_", "-")
        (logs / f"{stem}.log").write_text(text)
        found[f"task-{stem}"] = SimpleNamespace(
            log=logs / f"{stem}.log", deaths=deaths, was_ready=False, is_learner=True, last_words=text
        )
    return found


@pytest.mark.parametrize("again", ["", "2026-11-21 10:00:00 INFO importing\n"], ids=["says nothing", "only logs"])
def test_the_last_start_that_printed_anything_counts(tmp_path: Path, again: str) -> None:
    ran = pods(tmp_path, learner_0=(f"--- t\nold\n--- t\n{TRACEBACK}--- t\n{again}", 3))
    (tail,) = tails(ran, "whatever", logs=tmp_path)
    assert (tail.process, list(tail.lines)) == ("learner-0", TRACEBACK.splitlines())


def test_the_dead_and_the_named_are_shown_but_the_same_words_once(tmp_path: Path) -> None:
    ran = pods(
        tmp_path,
        learner_0=("a\n", 0),
        learner_1=("b\n", 0),
        learner_10=("c\n", 0),
        learner_2=("same\n", 1),
        learner_3=("same\n", 1),
        learner_4=("".join(f"{n}\n" for n in range(100)), 1),
    )
    shown = tails(ran, "learner-1 refused its set-up", logs=tmp_path)
    assert [tail.process for tail in shown] == ["learner-1", "learner-2", "learner-4"]
    assert list(shown[-1].lines) == [str(n) for n in range(88, 100)]


def test_three_deaths_before_being_ready_are_an_answer(tmp_path: Path) -> None:
    ran = pods(tmp_path, learner_0=(TRACEBACK, 2))
    assert crash_at_start(ran) is None
    ran["task-learner-0"].deaths = 3
    assert crash_at_start(ran) == "learner-0 ended 3 times before it was ready: OSError: no such data"
    ran["task-learner-0"].was_ready = True
    assert crash_at_start(ran) is None


def test_a_result_has_every_field_also_when_nothing_was_reached() -> None:
    nothing = result_of({}, phase="Failed", reason="R", message="m", model=None)
    assert nothing == {
        "phase": "Failed", "reason": "R", "message": "m", "rounds": 0, "accepted": 0, "testScore": None,
        "voteScore": None, "proposer": None, "model": None, "formats": [], "digest": None,
        "location": None,
    }  # fmt: skip
