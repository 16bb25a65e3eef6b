"""What the benchmarks share: processes, tasks driven in process, and a table of ratios."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from collective_coordinator.board import Board
from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.config import parse_config
from collective_coordinator.metrics import Metrics
from collective_coordinator.pulse import Timing
from collective_coordinator.task import drive
from collective_learner.wire.memory import keep_freed_parts


@dataclass(frozen=True)
class Row:
    """One figure: ours against a baseline (both medians) and what the ratio is held against."""

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    bar: str


def compare(name: str, ours: Sequence[float], baseline: Sequence[float], *, unit: str, bar: str) -> Row:
    """Compare two series measured in turn."""
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return Row(name, mine, theirs, unit, mine / theirs, bar)


@contextlib.contextmanager
def processes(*commands: Sequence[str]) -> Iterator[list[list[int]]]:
    """Start programs that print their ports as JSON, and end them by closing their input."""
    started = [
        subprocess.Popen([sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    try:
        yield [json.loads(process.stdout.readline()) for process in started if process.stdout]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def config_of(ports: Sequence[int], *, rounds: int, strategy: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write a coordinator's configuration for learners on these ports."""
    return {
        "version": 1,
        "task": {"namespace": "default", "name": "bench", "uid": "bench"},
        "model": {"name": "BENCH", "parameters": {}},
        "dataLoader": {"name": "BENCH", "parameters": {}},
        "rounds": rounds,
        "seed": 0,
        "strategy": strategy or {"type": "Vote"},
        "learners": [
            {"name": f"learner-{index}", "address": f"127.0.0.1:{port}", "location": str(index)}
            for index, port in enumerate(ports)
        ],
        "policy": {"minLearners": len(ports)},
    }


@dataclass(frozen=True)
class Timed:
    """Rounds, the first left out: seconds from decision to decision, and of each phase."""

    seconds: list[float]
    phases: list[dict[str, float]]


async def timed_rounds(config: dict[str, Any]) -> Timed:
    """Drive a task in this process, as `python -m collective_coordinator` does."""
    keep_freed_parts(in_one_place=True)
    parsed = parse_config(json.dumps(config))
    decided: list[float] = []

    def note(snapshot: Snapshot) -> None:
        decided.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as directory:
        await drive(
            parsed, state_dir=Path(directory), board=Board(parsed), metrics=Metrics(), timing=Timing(), decided=note
        )
        records = [json.loads(line) for line in await asyncio.to_thread(_lines, Path(directory, "rounds.jsonl"))]
    seconds = [after - before for before, after in pairwise(decided[1:])]
    return Timed(seconds, [record["seconds"] for record in records[1:]])


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


class Lag:
    """Measures for how long the event loop was away at most."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def __aenter__(self) -> Lag:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.perf_counter() - before - 0.005)


def report(rows: Sequence[Row], *, path: Path) -> None:
    """Print the table and write it as JSON."""
    width = max(len(row.name) for row in rows)
    print(f"{'':<{width}}  {'ours':>10} {'baseline':>10} {'unit':<6} {'ratio':>6}  wanted")
    for row in rows:
        figures = f"{row.ours:>10.4g} {row.baseline:>10.4g} {row.unit:<6} {row.ratio:>6.2f}"
        print(f"{row.name:<{width}}  {figures}  {row.bar}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
