"""Real processes for the coordinator's tests: learners on loopback ports, and the coordinator itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from ..ports import free_port

PLAIN = Path(__file__).with_name("plain_learner.py")
VECTORS = Path(__file__).with_name("vector_learners.py")
PATIENCE_S = 120.0


def until(condition: Callable[[], Any], what: str, *, patience_s: float = PATIENCE_S) -> Any:
    """Wait for something that must come; fail when it does not."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"in {patience_s:g} s there was no {what}")


class PlainProcess:
    """A plain learner in its own process; it can be killed and started again on its port."""

    def __init__(self, directory: Path, index: int, script: dict[str, Any]) -> None:
        self.index = index
        self.journal = directory / f"journal-{index}.jsonl"
        self.script = {**script, "journal": str(self.journal)}
        self.port = free_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(PLAIN), "--port", str(self.port), "--script", json.dumps(self.script)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def await_listening(self) -> None:
        assert self.process.stdout is not None
        assert int(self.process.stdout.readline()) == self.port

    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill -9, also when it is stopped."""
        if self.running():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        if not self.journal.exists():
            return []
        lines = self.journal.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]  # it may be being written
        return [line for line in found if not kinds or line["event"] in kinds]


@dataclass
class Coordinated:
    """A coordinator program and its files."""

    directory: Path
    config: dict[str, Any]
    raw_config: str | None = None
    """Instead of the configuration; empty: no file at all."""
    options: tuple[str, ...] = ()
    """Of the command line, behind all others."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def last_word(self) -> Path:
        return self.directory / "last-word"

    @property
    def log(self) -> str:
        return (self.directory / "coordinator.log").read_text()

    def start(self, *, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        path = self.directory / "coordinator.json"
        if self.raw_config is None:
            path.write_text(json.dumps(self.config))
        elif self.raw_config:
            path.write_text(self.raw_config)
        with (self.directory / "coordinator.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *wrapper,
                    sys.executable,
                    "-m",
                    "collective_coordinator",
                    "--config",
                    str(path),
                    "--state-dir",
                    str(self.state),
                    "--host",
                    "127.0.0.1",
                    "--port",
                    "0",
                    "--termination-log",
                    str(self.last_word),
                    *self.options,
                ],
                stderr=log,
            )
        self.processes.append(process)
        return process

    def run(self, *, wrapper: tuple[str, ...] = (), patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Run to the verdict and give it."""
        process = self.start(wrapper=wrapper)
        assert process.wait(patience_s) == 0, self.log
        return self.verdict()

    def verdict(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.last_word.read_text())
        return document

    def port(self) -> int:
        """Find the HTTP port of the newest start in the log."""

        def found() -> list[str]:
            return [line for line in self.log.splitlines() if "http on port" in line]

        starts = len(self.processes)
        until(lambda: len(found()) >= starts, "line with the port")
        return int(found()[-1].rsplit(" ", 1)[1])

    def get(self, page: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}{page}", timeout=60) as answer:
            return str(answer.read().decode())

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.get("/status"))
        return document

    def records(self) -> list[dict[str, Any]]:
        path = self.state / "rounds.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # it may be being written

    def model(self) -> bytes:
        return (self.state / "model.bin").read_bytes()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Callable[..., list[PlainProcess]]]:
    """Start plain learners: ``plain({...}, {...})``, one script each."""
    started: list[PlainProcess] = []

    def start(*scripts: dict[str, Any]) -> list[PlainProcess]:
        new = [PlainProcess(tmp_path, len(started) + index, script) for index, script in enumerate(scripts)]
        started.extend(new)
        for learner in new:
            learner.await_listening()
        return new

    yield start
    for learner in started:
        learner.kill()


@dataclass(frozen=True)
class Address:
    """A learner of whom only the port matters."""

    port: int


@pytest.fixture
def vectors() -> Iterator[Callable[..., list[Address]]]:
    """Start learners of a few numbers, ``vectors({...}, {...})``, one script each; in one process or in several."""
    processes: list[subprocess.Popen[str]] = []

    def start(*scripts: dict[str, Any], together: bool = True) -> list[Address]:
        groups = [list(scripts)] if together else [[script] for script in scripts]
        started = [
            subprocess.Popen(
                [sys.executable, str(VECTORS), json.dumps(group)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for group in groups
        ]
        processes.extend(started)
        return [Address(port) for process in started for port in json.loads(process.stdout.readline())]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def coordinated(tmp_path: Path) -> Iterator[Callable[..., Coordinated]]:
    """Make a coordinator for learners; it ends with the test."""
    made: list[Coordinated] = []

    def make(learners: list[PlainProcess], *, rounds: int, **more: Any) -> Coordinated:
        policy = {"minLearners": len(learners), "roundTimeoutSeconds": 60, "preRunningDeadlineSeconds": 60}
        config = {
            "version": 1,
            "task": {"namespace": "default", "name": "plain", "uid": "uid-1"},
            "model": {"name": "PLAIN", "parameters": {}},
            "dataLoader": {"name": "PLAIN", "parameters": {}},
            "rounds": rounds,
            "seed": 7,
            "strategy": {"type": "Vote", "vote": {"threshold": more.pop("threshold", 0.5)}},
            "learners": [
                {"name": f"learner-{index}", "address": f"127.0.0.1:{learner.port}", "location": f"{index}"}
                for index, learner in enumerate(learners)
            ],
            "policy": {**policy, **more.pop("policy", {})},
        }
        made.append(Coordinated(directory=tmp_path, config={**config, **more}))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes:
            if process.poll() is None:
                process.kill()
            process.wait(60)


def check_history(coordinated: Coordinated, learners: list[PlainProcess], *, rounds: int) -> None:
    """No round missing or twice, no accepted one lost or applied twice, and all end on the same bytes."""
    records = coordinated.records()
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    accepted = sum(record["accepted"] for record in records)
    # A plain learner's proposal is one generation after what it holds: a lost or doubled acceptance would show here.
    model = coordinated.model()
    assert int(model.split()[1]) == accepted
    result = coordinated.verdict()["result"]
    assert result["accepted"] == accepted
    digest = blake3(model).hexdigest()
    assert result["digest"] == f"blake3:{digest}"
    for learner in learners:
        taken = learner.events("setup", "set", "accept")
        assert taken[-1]["digest"] == digest, f"learner {learner.index} holds other weights at the end"
        generations = [event["generation"] for event in taken if event["event"] != "setup"]
        assert generations == sorted(generations)


@pytest.fixture
def history_is_sound() -> Callable[..., None]:
    return check_history


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing here may wait for ever."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
