"""The coordinator with the project's own learner servers, training scikit-learn models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..ports import free_port

pytest.importorskip("sklearn", reason="needs the extra sklearn")


class Server:
    def __init__(self, directory: Path, index: int) -> None:
        self.port = free_port()
        self.index = index
        self._log = directory / f"learner-{index}.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "collective_learner",
                    "--host=127.0.0.1",
                    f"--port={self.port}",
                    "--metrics-port=0",
                    "--import=collective_learner.tasks",
                ],
                stderr=log,
            )

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    started = [Server(tmp_path, index) for index in range(2)]
    yield started
    for server in started:
        server.kill()


def breast_cancer(coordinated, servers, *, rounds):
    task = coordinated(
        servers,
        rounds=rounds,
        model={"name": "SKLEARN_BREAST_CANCER", "parameters": {}},
        dataLoader={"name": "BREAST_CANCER", "parameters": {}},
    )
    for index, learner in enumerate(task.config["learners"]):
        learner["location"] = f"{index}/{len(servers)}"
    return task


def test_a_model_is_learnt_and_survives_a_kill_of_both_sides(servers, coordinated, wait_until):
    task = breast_cancer(coordinated, servers, rounds=20)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 3, "third round")
    servers[1].kill()
    process.kill()
    process.wait(60)
    servers[1].start()

    verdict = task.run()

    assert verdict["phase"] == "Complete", task.log
    assert verdict["result"]["model"] == "model.safetensors"
    assert verdict["result"]["testScore"] > 0.85
    assert [record["round"] for record in task.records()] == list(range(1, 21))
    model = (task.state / "model.safetensors").read_bytes()
    header = json.loads(model[8 : 8 + int.from_bytes(model[:8], "little")])
    assert header
    # Those who had been set up before were not set up again.
    assert "learner-1 is ready" in task.log


def test_the_same_seed_gives_the_same_rounds(servers, coordinated):
    def rounds(directory: str) -> list[dict[str, object]]:
        task = breast_cancer(coordinated, servers, rounds=6)
        task.directory = task.directory / directory
        task.directory.mkdir()
        assert task.run()["phase"] == "Complete", task.log
        return [{key: value for key, value in record.items() if key != "seconds"} for record in task.records()]

    first = rounds("first")
    for server in servers:
        server.kill()
        server.start()
    assert rounds("second") == first
