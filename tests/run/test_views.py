"""What people and programs are shown of a run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from collective_operator.cluster.protocol import TaskEvent
from collective_operator.run import view as views
from collective_operator.run.json_view import JsonView
from collective_operator.run.live_view import LiveView
from collective_operator.run.plain_view import PlainView
from collective_operator.run.view import Ended, LogTail, Pace, duration_text, mean, votes_of

RECORD = {
    "round": 7,
    "proposer": "learner-2",
    "accepted": True,
    "votes": {"learner-0": True, "learner-1": False},
    "voteScores": {"learner-0": 0.5, "learner-1": 0.25, "learner-2": None},
    "testScores": {"learner-0": 0.9, "learner-1": 0.8, "learner-2": None},
    "seconds": {"propose": 1.0, "test": 0.5, "accept": 0.25},
}
AVERAGED = {**RECORD, "strategy": "FedAvg", "proposer": None, "trainers": ["learner-0", "learner-1"], "votes": {}}
GATED = {
    **AVERAGED,
    "votes": {"learner-0": True, "learner-1": False, "learner-2": True},
    "leftOut": {"learner-1": "has not finished its training within 5 s", "learner-3": "Connecting"},
}
STATUS: dict[str, Any] = {
    "phase": "Running",
    "reason": "RoundsRunning",
    "round": {"current": 7, "total": 20, "accepted": 5},
    "learners": {"desired": 3, "ready": 3, "failed": 0},
    "learnerStatuses": [{"name": f"learner-{index}", "state": "Ready", "restarts": index % 2} for index in range(3)],
}
RESULT = {
    "phase": "Failed",
    "reason": "BelowQuorum",
    "message": "learner-1 is missing",
    "rounds": 7,
    "accepted": 5,
    "testScore": 0.91234,
    "voteScore": None,
    "proposer": "learner-0",
    "model": "model.safetensors",
    "digest": "blake3:0",
}
ENDED = Ended(
    result=RESULT,
    workdir=Path("runs/x"),
    files=["result.json", "logs/"],
    logs=[LogTail(process="learner-1", path=Path("runs/x/logs/learner-1.log"), lines=["Traceback", "OSError: no"])],
)


def test_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 102.0])
    monkeypatch.setattr(views.time, "monotonic", lambda: next(clock))
    view = PlainView()
    view.begin(name="x", workdir=Path("runs/x"), rounds=20, learners=3, decided=5)
    view.round({**RECORD, "round": 6, "accepted": False})
    view.status(STATUS)
    view.round(RECORD)
    view.event(TaskEvent(type="Warning", reason="Crashing", message="learner-1 died"))
    view.event(TaskEvent(type="Normal", reason="AllReady", message="3 of 3 ready"))
    view.end(ENDED)
    assert capsys.readouterr().out.splitlines() == [
        "x: 3 learners, 20 rounds, in runs/x, going on after round 5",
        "round  6/20  learner-2  rejected  1/2 votes  test 0.850  vote 0.375  1.8 s",
        "round  7/20  learner-2  accepted  1/2 votes  test 0.850  vote 0.375  1.8 s  26 s left",
        "warning: Crashing: learner-1 died",
        "AllReady: 3 of 3 ready",
        "last lines of runs/x/logs/learner-1.log:",
        "  | Traceback",
        "  | OSError: no",
        "Failed (BelowQuorum): learner-1 is missing [7 rounds, 5 accepted, test score 0.912, proposed by learner-0]",
        "runs/x: result.json, logs/",
    ]


def test_plain_lines_of_averaging(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views.time, "monotonic", lambda: 1.0)
    view = PlainView()
    view.round(AVERAGED)
    view.round({**GATED, "accepted": False})
    view.end(
        Ended(
            result={**RESULT, "phase": "Complete", "reason": "TestScoreReached", "proposer": None},
            workdir=Path("w"),
            files=["result.json"],
        )
    )
    view.end(Ended(result={**RESULT, "phase": "Complete", "reason": "RoundsCompleted"}, workdir=Path("w"), files=[]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "round 7/0  2 trained  accepted  test 0.850  vote 0.375  1.8 s"
    assert lines[1] == (
        "round 7/0  2 trained  rejected  2/3 votes  test 0.850  vote 0.375  1.8 s  without learner-1, learner-3"
    )
    assert lines[2] == "Complete (TestScoreReached): 7 rounds, 5 accepted, test score 0.912"
    assert lines[4].startswith("Complete: 7 rounds")


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonView()
    view.begin(name="x", workdir=Path("runs/x"), rounds=20, learners=3, decided=0)
    view.status(STATUS)
    view.status({**STATUS, "learnerStatuses": []})
    view.status({**STATUS, "phase": "Complete"})
    view.round(RECORD)
    view.event(TaskEvent(type="Normal", reason="AllReady", message="3 of 3 ready"))
    view.note("by the way")
    view.end(ENDED)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["begin", "status", "status", "round", "event", "note", "end"]
    assert lines[1]["phase"] == "Running" and lines[1]["round"]["current"] == 7
    assert lines[3]["record"] == RECORD
    assert lines[-1]["result"] == RESULT
    assert lines[-1]["logs"][0]["lines"] == ["Traceback", "OSError: no"]


def live(height: int, learners: int, record: dict[str, Any] = RECORD) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=110, height=height, color_system=None)
    view = LiveView(console)
    view.begin(name="x", workdir=Path("runs/x"), rounds=20, learners=learners, decided=0)
    rows = [{"name": f"learner-{index}", "state": "Ready", "restarts": index % 2} for index in range(learners)]
    view.status({**STATUS, "learnerStatuses": rows})
    view.round(record)
    view.event(TaskEvent(type="Warning", reason="Crashing", message="learner-1 died"))
    view.close()
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def test_the_table_shows_the_round_learner_by_learner() -> None:
    shown = live(height=40, learners=3)
    lines = shown.splitlines()
    assert lines[0].rstrip() == ("x  Running  round 7/20: learner-2 proposed, accepted by 1 of 2  test score 0.850")
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == [
        ["learner-0", "Ready", "for", "0.500", "0.900", ""],
        ["learner-1", "Ready", "against", "0.250", "0.800", "1"],
        ["learner-2", "Ready", "proposer", "-", "-", ""],
    ]
    assert "7/20" in lines[-2]
    assert lines[-1].startswith("Crashing: learner-1 died")


def test_the_table_shows_who_trained_voted_and_was_left_out() -> None:
    averaged, gated = (live(height=40, learners=4, record=record).splitlines() for record in (AVERAGED, GATED))
    assert averaged[0].rstrip() == "x  Running  round 7/20: 2 learners trained, accepted  test score 0.850"
    head = "x  Running  round 7/20: 2 learners trained, accepted by 2 of 3  test score 0.850  2 left out"
    assert gated[0].rstrip() == head

    def parts(lines: list[str]) -> list[str]:
        return [line.strip("│").split("│")[2].strip() for line in lines if line.startswith("│")]

    assert parts(averaged) == ["trained", "trained", "", ""]
    assert parts(gated) == ["trained, for", "trained, against, left out", "for", "left out"]


def test_the_table_never_outgrows_the_terminal() -> None:
    shown = live(height=24, learners=50)
    assert len(shown.splitlines()) <= 24
    assert "learner-0 " in shown
    assert "and 36 more" in shown


def test_pace_needs_two_rounds_and_runs_down(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(views.time, "monotonic", lambda: now)
    pace = Pace()
    assert pace.seconds_left(10) is None
    pace.decided(4)
    assert pace.seconds_left(10) is None
    now = 3.0
    pace.decided(5)
    assert pace.seconds_left(10) == pytest.approx(15)
    now = 4.0
    assert pace.seconds_left(10) == pytest.approx(14)
    now = 400.0
    assert pace.seconds_left(10) == 0


def test_small_sums() -> None:
    assert mean({}) is None
    assert mean({"a": None, "b": 0.5, "c": 0.0}) == 0.25
    assert votes_of(RECORD) == (1, 2)
    assert [duration_text(seconds) for seconds in (0.4, 59.4, 59.6, 3599, 7385)] == [
        "0 s", "59 s", "1:00", "59:59", "2:03:05",
    ]  # fmt: skip
