"""Lines for logs and pipes: one a round, one for whatever else is worth telling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from collective_operator.cluster.protocol import TaskEvent
from collective_operator.run.view import (
    Ended,
    Pace,
    duration_text,
    mean,
    score_text,
    seconds_of,
    start_text,
    summary,
    trainers_of,
    votes_of,
)


class PlainView:
    """Writes to stdout; what warns goes there too, since order is half of what it says."""

    def __init__(self) -> None:
        self._rounds = 0
        self._pace = Pace()

    def begin(self, *, name: str, workdir: Path | None, rounds: int, learners: int, decided: int) -> None:
        """Say what starts."""
        self._rounds = rounds
        click.echo(start_text(name=name, workdir=workdir, rounds=rounds, learners=learners, decided=decided))

    def status(self, status: Mapping[str, Any]) -> None:
        """Say nothing: events tell what changes."""

    def round(self, record: Mapping[str, Any]) -> None:
        """Write a round's line."""
        number = record["round"]
        self._pace.decided(number)
        left = self._pace.seconds_left(self._rounds)
        parts = [
            f"round {number:{len(str(self._rounds))}}/{self._rounds}",
            record.get("proposer") or f"{len(trainers_of(record))} trained",
            "accepted" if record["accepted"] else "rejected",
        ]
        approvals, votes = votes_of(record)
        if votes:
            parts.append(f"{approvals}/{votes} votes")
        parts += [
            f"test {score_text(mean(record['testScores']))}",
            f"vote {score_text(mean(record['voteScores']))}",
            f"{seconds_of(record):.1f} s",
        ]
        if left and left >= 0.5:
            parts.append(f"{duration_text(left)} left")
        if record.get("leftOut"):
            parts.append(f"without {', '.join(record['leftOut'])}")
        click.echo("  ".join(parts))

    def event(self, event: TaskEvent) -> None:
        """Write an event's line."""
        prefix = "warning: " if event.type == "Warning" else ""
        click.echo(f"{prefix}{event.reason}: {event.message}")

    def note(self, text: str) -> None:
        """Write a line."""
        click.echo(text)

    def end(self, ended: Ended) -> None:
        """Write the result, where it is, and what the learners had to say about a failure."""
        tell_end(ended)

    def close(self) -> None:
        """Nothing is open."""


def tell_end(ended: Ended) -> None:
    """Write how a run ended, in lines."""
    for tail in ended.logs:
        click.echo(f"last lines of {tail.path}:")
        for line in tail.lines:
            click.echo(f"  | {line}")
    click.echo(summary(ended.result))
    if ended.workdir:
        click.echo(f"{ended.workdir}: {', '.join(ended.files)}")
    if location := ended.result.get("location"):
        click.echo(f"{location}: the model and its rounds, too")
