"""What a run tells, whoever watches: a person at a terminal, a log file, or a program."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from collective_operator.cluster.protocol import TaskEvent

_ALL_DONE = ("RoundsCompleted", "Completed")
"""Reasons of a run that did all its rounds; any other is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTail:
    """The last lines that a process printed."""

    process: str
    path: Path
    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    result: Mapping[str, Any]
    workdir: Path | None = None
    """The folder of a run on this machine."""
    files: Sequence[str] = ()
    """What is in the folder now, by name."""
    logs: Sequence[LogTail] = ()
    """Of the learners that the failure is about."""


class View(Protocol):
    """Shows one run."""

    def begin(self, *, name: str, workdir: Path | None, rounds: int, learners: int, decided: int) -> None:
        """Say what starts; `decided` rounds are there already when it goes on."""

    def status(self, status: Mapping[str, Any]) -> None:
        """Show the task's status, which may not have changed."""

    def round(self, record: Mapping[str, Any]) -> None:
        """Show a decided round: a line of rounds.jsonl."""

    def event(self, event: TaskEvent) -> None:
        """Show what the reconcile thought worth telling."""

    def note(self, text: str) -> None:
        """Say something in passing."""

    def end(self, ended: Ended) -> None:
        """Say how it ended."""

    def close(self) -> None:
        """Leave the terminal as it was; also after a failure."""


class Pace:
    """Estimates the time left from the rounds that were decided under our eyes."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def decided(self, number: int) -> None:
        """Note that a round has just been decided."""
        now = (number, time.monotonic())
        self._first = self._first or now
        self._last = now

    def seconds_left(self, total: int) -> float | None:
        """Return the estimate; None before there is anything to go by."""
        if self._first is None or self._last is None or self._last[0] == self._first[0]:
            return None
        per_round = (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])
        return max(0.0, per_round * (total - self._last[0]) - (time.monotonic() - self._last[1]))


def mean(scores: Mapping[str, float | None]) -> float | None:
    """Average what was measured; None when nothing was."""
    known = [score for score in scores.values() if score is not None]
    return sum(known) / len(known) if known else None


def trainers_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Name those whose training is in what a round proposed."""
    proposer = record.get("proposer")
    return tuple(record.get("trainers") or ([proposer] if proposer else ()))


def votes_of(record: Mapping[str, Any]) -> tuple[int, int]:
    """Count approvals and votes of a round; none where nobody was asked."""
    votes = record.get("votes", {}).values()
    return sum(map(bool, votes)), len(votes)


def seconds_of(record: Mapping[str, Any]) -> float:
    """Add up the phases of a round; one that a crash cut off has no length."""
    return float(sum(seconds for seconds in record.get("seconds", {}).values() if seconds))


def score_text(score: float | None) -> str:
    """Write a score; a dash where there is none."""
    return "-" if score is None else f"{round(score, 3) + 0.0:.3f}"


def duration_text(seconds: float) -> str:
    """Write a duration for people: ``12 s``, ``3:05``, ``2:03:05``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def start_text(*, name: str, workdir: Path | None, rounds: int, learners: int, decided: int) -> str:
    """Tell what starts in one line."""
    where = f", in {workdir}" if workdir else ""
    goes_on = f", going on after round {decided}" if decided else ""
    return f"{name}: {learners} learners, {rounds} rounds{where}{goes_on}"


def summary(result: Mapping[str, Any]) -> str:
    """Tell a result in one line, or with all the lines of why it failed."""
    told = f"{result['rounds']} rounds, {result['accepted']} accepted"
    if result["testScore"] is not None:
        told += f", test score {score_text(result['testScore'])}"
    if result["voteScore"] is not None:
        told += f", vote score {score_text(result['voteScore'])}"
    if result["proposer"]:
        told += f", proposed by {result['proposer']}"
    if result["phase"] == "Complete":
        early = "" if result["reason"] in _ALL_DONE else f" ({result['reason']})"
        return f"Complete{early}: {told}"
    first, newline, rest = result["message"].partition("\n")  # a traceback has more lines than one
    return f"{result['phase']} ({result['reason']}): {first} [{told}]{newline}{rest}"
