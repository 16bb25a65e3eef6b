"""docs/cli.md: each command line is one that there is, and what it shows is what is printed."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from collective_operator.cli import COMMANDS, collective, main
from collective_operator.commands.render import task_list, task_status
from collective_operator.wording import stamp

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cli.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
LINES = [
    line.removeprefix("$ ").partition(" #")[0].strip().replace("kubectl collective", "collective")
    for language, block in BLOCKS
    if language in ("sh", "console")
    for line in block.splitlines()
    if re.match(r"(\$ )?(kubectl )?collective ", line)
]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: int) -> str:
    return stamp(NOW - timedelta(seconds=seconds))


def condition(kind: str, status: str, reason: str, seconds: int, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": ago(seconds)}


DIGITS: dict[str, Any] = {
    "metadata": {"name": "digits", "namespace": "lab", "creationTimestamp": ago(100)},
    "spec": {
        "model": {"name": "SKLEARN_DIGITS"},
        "dataLoader": {"name": "DIGITS"},
        "rounds": 20,
        "learners": {"count": 3},
    },
    "status": {
        "phase": "Running",
        "reason": "RoundsRunning",
        "strategy": "Vote",
        "score": 0.8944,
        "round": {"current": 7, "total": 20, "accepted": 5, "summary": "7/20", "lastTime": ago(3)},
        "latest": {"round": 7, "testScore": 0.8944, "voteScore": 0.9038, "proposer": "learner-0", "accepted": True},
        "learners": {"summary": "3/3"},
        "learnerStatuses": [
            {"name": f"learner-{index}", "state": "Ready", "lastScore": score, "restarts": 0}
            for index, score in enumerate((0.9, 0.8833, 0.9))
        ],
        "conditions": [
            condition("Accepted", "True", "Accepted", 100, "the spec is valid"),
            condition("LearnersReady", "True", "AllReady", 80, "3 of 3 ready"),
            condition("CoordinatorReady", "True", "Serving", 85, "digits-coordinator is ready"),
            condition("Progressing", "True", "RoundsRunning", 75, "the coordinator drives the rounds"),
            condition("Suspended", "False", "NotSuspended", 100),
            condition("Complete", "False", "NotFinished", 100),
            condition("Failed", "False", "NotFinished", 100),
        ],
    },
}
EVENTS = [
    {"type": "Normal", "reason": reason, "message": message, "lastTimestamp": ago(seconds), "metadata": {}}
    for reason, message, seconds in (
        ("Accepted", "the spec is valid", 100),
        ("AllReady", "3 of 3 ready", 80),
        ("RoundsRunning", "the coordinator drives the rounds", 75),
    )
]


def shown(command: str) -> list[str]:
    """What a console block shows below a command."""
    for _, block in BLOCKS:
        first, _, rest = block.partition("\n")
        if first == f"$ {command}":
            return rest.splitlines()
    raise AssertionError(f"docs/cli.md does not show {command}")


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_one(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed and not run: click refuses what it does not know."""
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    _, name, *arguments = shlex.split(line)
    command = collective.get_command(click.Context(collective), name)
    assert command is not None, name
    command.make_context(name, arguments)


def test_every_command_for_people_is_told() -> None:
    told = {shlex.split(line)[1] for line in LINES}
    mine = {name for name, entry in COMMANDS.items() if ".commands." in entry.home}
    assert mine <= told
    options = {shlex.split(line)[1] for line in LINES if " -n " in line or " -A" in line}
    assert options, "namespaces are told of"


def test_what_a_list_shows() -> None:
    assert shown("collective list") == [click.unstyle(line) for line in task_list([DIGITS], now=NOW, namespaces=False)]


def test_what_a_status_shows() -> None:
    assert shown("collective status digits") == [click.unstyle(line) for line in task_status(DIGITS, EVENTS, now=NOW)]


def test_what_check_and_init_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--yes", "task.yaml"]) == 0
    assert shown("collective init --yes task.yaml") == capsys.readouterr().out.splitlines()
    text = (tmp_path / "task.yaml").read_text()
    (tmp_path / "task.yaml").write_text(text.replace("rounds: 20", "rounds: 0\n  round: 20"))
    assert main(["check", "task.yaml"]) == 2
    assert shown("collective check task.yaml") == capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("code", "arguments"),
    [(0, ["init", "-y"]), (1, ["list", "--kubeconfig", "none"]), (2, ["check", "none.yaml"]), (2, ["list", "--no"])],
)
def test_exit_statuses(code: int, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert re.search(rf"^\| {code} \|", TEXT, re.MULTILINE)
