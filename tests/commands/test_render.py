"""What `collective list` and `status` print, from what an API server says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from collective_operator.commands.render import age, task_list, task_status, waits_for

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MADE = "2026-01-01T11:57:00Z"


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": MADE}


ACCEPTED = condition("Accepted", "True", "Accepted", "the spec is valid")
DONE = condition("LearnersReady", "False", "Finished", "they have done all that they can do")
WAITING = [
    ACCEPTED,
    condition("LearnersReady", "False", "Unschedulable", "1 of 2 ready; d-learner-1: no GPU is free"),
    condition("CoordinatorReady", "True", "Serving", "d-coordinator is ready"),
    condition("Progressing", "False", "WaitingForLearners", "the coordinator waits for learners: learner-1"),
    condition("Suspended", "False", "NotSuspended"),
]


def task(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "d", "namespace": "lab", "creationTimestamp": MADE},
        "spec": {"model": {"name": "M"}, "dataLoader": {"name": "D"}, "rounds": 20, "learners": {"count": 2}},
        "status": {"conditions": list(conditions), **status},
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (12_000, "3h20m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (700_000, "8d"),
        (90_000_000, "1041d"),
        (-5, "0s"),
    ],
)
def test_ages_are_kubectls(seconds: int, text: str) -> None:
    assert age((NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"), NOW) == text


def test_a_list_has_its_columns_under_one_another_whatever_is_coloured() -> None:
    running = task(phase="Running", score=0.95281, round={"summary": "7/20"}, strategy="FedAvg+Vote", reason="R")
    lines = task_list([running, task()], now=NOW, namespaces=True)
    assert [click.unstyle(line) for line in lines] == [
        "NAMESPACE   NAME   PHASE     ROUND   READY   SCORE    STRATEGY      REASON   AGE",
        "lab         d      Running   7/20    -       0.9528   FedAvg+Vote   R        3m",
        "lab         d      Pending   -       -       -        -             -        3m",
    ]
    assert lines[1] != click.unstyle(lines[1])


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ([], "an operator: none has looked at the task yet"),
        (
            [condition("Accepted", "False", "InvalidSpec", "spec.x: no"), condition("Failed", "True", "InvalidSpec")],
            "a spec that is valid: spec.x: no",
        ),
        (
            WAITING,
            "1 of 2 ready; d-learner-1: no GPU is free; the coordinator waits for learners: learner-1",
        ),
        (
            [ACCEPTED, condition("Progressing", "Unknown", "CoordinatorSilent", "d-coordinator does not answer")],
            "d-coordinator does not answer",
        ),
        (
            [ACCEPTED, condition("Suspended", "True", "Suspended", "none of its pods is there")],
            "somebody to resume it; none of its pods is there",
        ),
        ([ACCEPTED, condition("Suspended", "False", "Suspending", "d-learner-0")], "its pods to go: d-learner-0"),
        (
            [
                ACCEPTED,
                condition("LearnersReady", "True", "AllReady", "2 of 2 ready"),
                condition("Progressing", "True", "RoundsRunning"),
            ],
            "the next round",
        ),
        (
            [
                ACCEPTED,
                condition("LearnersReady", "True", "QuorumReady", "1 of 2 ready"),
                condition("Progressing", "True", "RoundsRunning"),
            ],
            "the next round; 1 of 2 ready",
        ),
        (
            [ACCEPTED, DONE, condition("Progressing", "True", "UploadingResult", "Bringing the result to s3://x/y")],
            "its end: Bringing the result to s3://x/y",
        ),
        (
            [ACCEPTED, DONE, condition("Progressing", "False", "WaitingForCoordinator")],
            "WaitingForCoordinator",
        ),
        ([ACCEPTED, condition("Failed", "True", "Aborted", "wrong data")], "nothing: wrong data"),
        ([ACCEPTED, condition("Complete", "True", "RoundsCompleted", "")], "nothing: RoundsCompleted"),
    ],
)
def test_what_a_task_waits_for(conditions: list[dict[str, str]], text: str) -> None:
    assert waits_for(task(*conditions)) == text


def test_a_status_has_everything() -> None:
    learners = [
        {"name": "learner-0", "state": "Ready", "lastScore": 0.9, "restarts": 1,
         "privacy": {"consumedEpsilon": 1.25, "targetEpsilon": 8.0}},
        {"name": "learner-1", "state": "Unschedulable", "restarts": 0, "message": "no GPU is free"},
    ]  # fmt: skip
    event = {"type": "Warning", "reason": "Unschedulable", "message": "no GPU", "lastTimestamp": MADE, "metadata": {}}
    found = task(
        *WAITING, phase="Starting", reason="Unschedulable", score=0.9, learners={"summary": "1/2"},
        learnerStatuses=learners, round={"current": 7, "accepted": 5, "lastTime": MADE},
        latest={"round": 7, "accepted": False, "testScore": 0.5}, dashboard="https://grafana/d/x",
    )  # fmt: skip
    text = [click.unstyle(line) for line in task_status(found, [event] * 12, now=NOW)]
    assert text[:9] == [
        "Task:       lab/d, made 3m ago",
        "Phase:      Starting (Unschedulable)",
        "Model:      M on D, Vote",
        "Rounds:     7 of 20 decided, 5 accepted, the last 3m ago",
        "Latest:     round 7: rejected, test score 0.500, vote score -",
        "Score:      0.9",
        "Learners:   1/2 ready",
        "Waits for:  1 of 2 ready; d-learner-1: no GPU is free; the coordinator waits for learners: learner-1",
        "Dashboard:  https://grafana/d/x",
    ]
    assert text[9:13] == [
        "",
        "Learners:",
        "  NAME        STATE           SCORE   EPSILON   RESTARTS   MESSAGE",
        "  learner-0   Ready           0.900   1.25/8    1",
    ]
    assert (
        "  LearnersReady      False    Unschedulable        3m      1 of 2 ready; d-learner-1: no GPU is free" in text
    )
    assert sum("no GPU" in line and "Warning" in line for line in text) == 10, "the last ones"


def test_a_task_without_a_status() -> None:
    fresh = {**task(), "status": None}
    assert "Waits for:  an operator: none has looked at the task yet" in task_status(fresh, [], now=NOW)


def test_nothing_that_is_quoted_moves_a_cursor_or_makes_a_line() -> None:
    evil = "\x1b[2Jgone\nREADY   3/3\x9b31m\u2028é \x1b]0;title\x07"
    quoting = task(condition("Failed", "True", "Aborted", evil), phase=evil, strategy=evil, reason=evil)
    quoting["spec"]["model"]["name"] = evil
    quoting["status"]["learnerStatuses"] = [{"name": "learner-0", "state": evil, "message": evil}]
    event = {"metadata": {"creationTimestamp": MADE}, "type": evil, "reason": evil, "message": evil}
    lines = [*task_status(quoting, [event], now=NOW), *task_list([quoting], now=NOW, namespaces=True)]
    text = click.unstyle("\n".join(lines))
    assert r"\x1b[2Jgone READY 3/3\x9b31m é \x1b]0;title\x07" in text
    assert not {character for character in text if not character.isprintable()} - {"\n"}
    assert not [line for line in text.splitlines() if line.startswith("READY")]
