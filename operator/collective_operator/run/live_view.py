"""The table that lives while a run does: where it is, what each learner does and scores, how long it will take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from collective_operator.cluster.protocol import TaskEvent
from collective_operator.run.plain_view import tell_end
from collective_operator.run.view import (
    Ended,
    Pace,
    duration_text,
    mean,
    score_text,
    start_text,
    trainers_of,
    votes_of,
)

_FRAME_LINES = 9
"""Lines around the learners' rows: title, head, bar, the last event."""
_REFRESHES_PER_SECOND = 4


class LiveView:
    """Redraws itself in place.

    Parameters
    ----------
    console
        Where to draw; the terminal unless told.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._name = ""
        self._rounds = 1
        self._status: Mapping[str, Any] = {}
        self._record: Mapping[str, Any] = {}
        self._told = ""
        self._pace = Pace()
        # What is drawn is made anew at each refresh, so that the time left runs between two rounds.
        self._live = Live(
            console=self._console, get_renderable=self.render, refresh_per_second=_REFRESHES_PER_SECOND, transient=True
        )

    def begin(self, *, name: str, workdir: Path | None, rounds: int, learners: int, decided: int) -> None:
        """Start to draw."""
        self._name, self._rounds = name, rounds
        told = start_text(name=name, workdir=workdir, rounds=rounds, learners=learners, decided=decided)
        self._console.print(told, highlight=False)
        self._live.start()

    def status(self, status: Mapping[str, Any]) -> None:
        """Take the status for the next refresh."""
        self._status = status

    def round(self, record: Mapping[str, Any]) -> None:
        """Take a round for the next refresh."""
        self._record = record
        self._pace.decided(record["round"])

    def event(self, event: TaskEvent) -> None:
        """Show an event under the table; a warning also stays above it."""
        self._told = f"{event.reason}: {event.message}"
        if event.type == "Warning":
            self._console.print(Text(f"warning: {self._told}", style="yellow"))

    def note(self, text: str) -> None:
        """Print above the table."""
        self._console.print(Text(text))

    def end(self, ended: Ended) -> None:
        """Leave the last table on the screen, and the result under it."""
        self._live.transient = False
        self._told = ""
        self.close()
        tell_end(ended)

    def close(self) -> None:
        """Stop drawing."""
        self._live.stop()

    def render(self) -> Group:
        """Draw the present state."""
        return Group(self._headline(), self._table(), self._bar(), Text(self._told, style="dim", overflow="ellipsis"))

    def _headline(self) -> Text:
        line = Text.assemble((self._name, "bold"), "  ", (self._status.get("phase", "Pending"), "bold cyan"))
        record = self._record
        if record:
            approvals, votes = votes_of(record)
            accepted = record["accepted"]
            proposer = record.get("proposer")
            who = f"{proposer} proposed" if proposer else f"{len(trainers_of(record))} learners trained"
            line.append(f"  round {record['round']}/{self._rounds}: {who}, ")
            line.append("accepted" if accepted else "rejected", style="green" if accepted else "red")
            if votes:
                line.append(f" by {approvals} of {votes}" if accepted else f", {approvals} of {votes} for it")
            line.append(f"  test score {score_text(mean(record['testScores']))}", style="bold")
            if record.get("leftOut"):
                line.append(f"  {len(record['leftOut'])} left out", style="yellow")
        return line

    def _table(self) -> Table:
        table = Table(expand=False)
        for column in ("learner", "state", "part", "vote score", "test score", "restarts"):
            table.add_column(column, justify="right" if "score" in column or column == "restarts" else "left")
        learners = self._status.get("learnerStatuses", [])
        shown = max(1, self._console.height - _FRAME_LINES)
        if len(learners) > shown:
            learners, left_out = learners[: shown - 1], len(learners) - shown + 1
        else:
            left_out = 0
        for learner in learners:
            name = learner["name"]
            table.add_row(
                name,
                learner.get("state", ""),
                self._part(name),
                score_text(self._record.get("voteScores", {}).get(name)),
                score_text(self._record.get("testScores", {}).get(name)),
                str(learner.get("restarts", 0) or ""),
            )
        if left_out:
            table.add_row(f"and {left_out} more", "", "", "", "", "", style="dim")
        return table

    def _part(self, name: str) -> Text:
        """Tell what a learner did in the last round: trained, voted, or was left out, in any combination."""
        record = self._record
        parts = []
        if name == record.get("proposer"):
            parts.append(Text("proposer", style="bold"))
        elif name in trainers_of(record):
            parts.append(Text("trained", style="bold"))
        vote = record.get("votes", {}).get(name)
        if vote is not None:
            parts.append(Text("for", style="green") if vote else Text("against", style="red"))
        if name in record.get("leftOut", {}):
            parts.append(Text("left out", style="yellow"))
        return Text(", ").join(parts)

    def _bar(self) -> Table:
        # A cluster's status may know of rounds whose records are not to be had.
        decided = max(int(self._record.get("round", 0)), int(self._status.get("round", {}).get("current", 0)))
        left = self._pace.seconds_left(self._rounds)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=self._rounds, completed=decided, width=40),
            f"{decided}/{self._rounds}",
            f"{duration_text(left)} left" if left and left >= 0.5 else "",
        )
        return bar
