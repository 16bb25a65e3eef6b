"""Starts `collective run` as a person would, watches it from outside, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = Path(__file__).parent / "modules"
_MARK = "COLLECTIVE_TEST_MARK"

HALVING = """
apiVersion: collectivelearning.dev/v1alpha1
kind: CollectiveTask
metadata: {{name: halving}}
spec:
  model: {{name: HALVING, parameters: {{seconds: {seconds}{held}}}}}
  dataLoader: {{name: TARGET}}
  rounds: {rounds}
  learners: {{count: 3, imports: [{imports}]}}
"""


def halving(
    path: Path,
    *,
    rounds: int = 6,
    seconds: float = 0.0,
    imports: str = "halving",
    gate: Path | None = None,
    free: int = 1,
) -> Path:
    """Write a task of three small learners; with a gate, each trains so often and no more before that file is there."""
    task = path / "task.yaml"
    held = "" if gate is None else f", gate: {gate}, free: {free}"
    task.write_text(HALVING.format(rounds=rounds, seconds=seconds, imports=imports, held=held))
    return task


def _python_path(first: Path) -> str:
    """Put a folder in front of what the tests themselves were given."""
    return os.pathsep.join(filter(None, [str(first), os.environ.get("PYTHONPATH")]))


class Run:
    """One `collective run` in a session of its own, whose processes all carry a mark in their environment."""

    def __init__(self, *arguments: object, cwd: Path, stdout: Any = None, module_path: Path = MODULES) -> None:
        self.mark = uuid.uuid4().hex
        self.output_file = cwd / f"output-{self.mark}.txt"
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "collective_operator", "run", *map(str, arguments)],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": _python_path(module_path), _MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=stdout or output,
                stderr=output if stdout is None else stdout,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def processes(self) -> dict[int, list[str]]:
        """Find all living processes of this run, with their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().decode().split("\0")
                    found[int(entry.name)] = command
            except OSError:
                continue
        # A process that only waits to be reaped has no environment any more, and is not found.
        return found

    def children(self, module: str) -> list[int]:
        """Find the processes that run a module, lowest port first."""
        running = [(command, pid) for pid, command in self.processes().items() if module in command]
        return [pid for _, pid in sorted(running)]

    def learner(self, index: int, workdir: Path) -> int:
        """Find a learner's process by the port that the coordinator knows it under."""
        config = json.loads((workdir / ".run" / "halving-coordinator" / "coordinator.json").read_text())
        port = config["learners"][index]["address"].rpartition(":")[2]
        (pid,) = [
            pid
            for pid, command in self.processes().items()
            if "collective_learner" in command and f"--port={port}" in command
        ]
        return pid

    def wait(self, timeout_s: float = 180) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(timeout_s)

    def until(self, holds: Callable[[], Any], timeout_s: float = 120) -> Any:
        """Wait until something holds while the run goes on."""
        deadline = time.monotonic() + timeout_s
        while True:
            if value := holds():
                return value
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"not within {timeout_s} s:\n{self.output}"
            time.sleep(0.03)

    def until_gone(self, timeout_s: float = 60) -> None:
        """Wait until no process of this run is left."""
        deadline = time.monotonic() + timeout_s
        while left := self.processes():
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.03)

    def end(self) -> None:
        """Kill whatever is left of it."""
        for pid in [self.process.pid, *self.processes()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def rounds(workdir: Path) -> list[dict[str, Any]]:
    """Read rounds.jsonl; only whole lines while it is being written."""
    path = workdir / "rounds.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def result(workdir: Path) -> dict[str, Any]:
    """Read result.json."""
    return json.loads((workdir / "result.json").read_text())


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what no two runs share."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]
