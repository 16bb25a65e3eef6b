"""A copy of a volume that was taken at any moment is a backup: another run goes on from it (docs/operations.md)."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .runs import Run, halving, result, rounds, untimed


def test_a_snapshot_of_a_run_that_goes_on_is_gone_on_with(start: Callable[..., Run], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = halving(tmp_path, rounds=8, gate=gate)
    first = start(task, "--workdir", "first")
    end = time.monotonic() + 120
    while len(rounds(tmp_path / "first")) < 3:
        assert time.monotonic() < end and first.process.poll() is None, first.output
        time.sleep(0.05)
    (coordinator,) = first.children("collective_coordinator")
    os.kill(coordinator, signal.SIGSTOP)  # as a snapshot sees a disk: one moment of it, wherever the program is
    try:
        snapshot = tmp_path / "restored"
        snapshot.mkdir()
        shutil.copytree(tmp_path / "first" / "checkpoint", snapshot / "checkpoint")
        for name in ("task.json", "rounds.jsonl"):
            shutil.copy(tmp_path / "first" / name, snapshot)
    finally:
        os.kill(coordinator, signal.SIGCONT)
        gate.touch()
    assert first.wait() == 0, first.output
    kept = untimed(rounds(snapshot))
    assert 3 <= len(kept) < 8

    second = start(task, "--workdir", "restored")
    assert second.wait() == 0, second.output
    told = rounds(snapshot)
    assert [record["round"] for record in told] == list(range(1, 9))
    assert untimed(told)[: len(kept)] == kept
    assert result(snapshot)["digest"] == result(tmp_path / "first")["digest"]
