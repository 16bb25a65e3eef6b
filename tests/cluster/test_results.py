"""What a task has learnt, on its way to a person: through a real API server, from the program that serves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .control_plane import eventually
from .kubelet import Kubelet
from .playground import Coordinator, Namespace, Operator, manifest
from .test_commands import COORDINATOR, Collective, collective, fail, running

__all__ = ["collective"]

MODEL = os.urandom(3_000_000)


def record(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "strategy": "Vote",
        "proposer": "learner-0",
        "trainers": ["learner-0"],
        "accepted": True,
        "votes": {"learner-1": True},
        "voteScores": {"learner-0": 0.5, "learner-1": 0.5},
        "testScores": {"learner-0": 0.5, "learner-1": 0.5},
        "seconds": {"propose": 0.1, "test": 0.1, "accept": 0.1},
    }


def decide(state: Path, number: int) -> None:
    with (state / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(record(number)) + "\n")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(MODEL)
    for number in range(1, 8):
        decide(folder, number)
    return folder


@pytest.fixture
def kubelet(namespace: Namespace, state: Path, tmp_path: Path) -> Iterator[Kubelet]:
    """A node whose pods all serve this folder, by the program that they really run."""
    program = [sys.executable, "-m", "collective_coordinator.results", "--state-dir", str(state), "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(" ", 1)[1])
        with Kubelet(namespace, port=port, folder=tmp_path).serving() as node:
            yield node
        process.kill()


def test_from_a_coordinator_that_runs_and_from_its_volume_after(
    namespace: Namespace,
    operator: Operator,
    coordinator: Coordinator,
    collective: Collective,
    kubelet: Kubelet,
    state: Path,
    tmp_path: Path,
) -> None:
    running(namespace, coordinator)
    kubelet.take(COORDINATOR)
    out = tmp_path / "out"
    code, told, err = collective("results", "digits", "-o", str(out))
    assert (code, err) == (0, "")
    assert (out / "model.safetensors").read_bytes() == MODEL and f"{out / 'model.safetensors'}  3 MB" in told
    assert (out / "rounds.jsonl").read_bytes() == (state / "rounds.jsonl").read_bytes()
    assert (out / "rounds.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "result.json").exists() and not list(out.glob(".*"))
    assert collective("check", str(out / "task.yaml"), here=False)[0] == 0
    assert f"/portForward/{namespace.name}/{COORDINATOR}?port=8082" in kubelet.asked

    assert collective("logs", "digits", "--tail", "2")[1] == "round 1/20: accepted\nround 2/20: rejected\n"
    assert kubelet.asked[-1].startswith(f"/containerLogs/{namespace.name}/{COORDINATOR}/coordinator?")
    assert "tailLines=2" in kubelet.asked[-1]

    command = [sys.executable, "-m", "collective_operator", "watch", "digits", "-n", namespace.name]
    with subprocess.Popen([*command, "-o", "json", "--every", "0.3"], stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        lines = (json.loads(line) for line in watch.stdout)
        rounds = (line["record"]["round"] for line in lines if line["event"] == "round")
        assert next(rounds) == 7, "of what was decided before, the last"
        decide(state, 8)
        decide(state, 9)
        assert [next(rounds), next(rounds)] == [8, 9]
        fail(namespace, coordinator)
        assert watch.wait(30) == 1

    name = f"{namespace.core}/pods/{COORDINATOR}"
    namespace.plane.request("DELETE", name, {"gracePeriodSeconds": 0})
    eventually(lambda: namespace.plane.get(name) is None)
    played: list[dict[str, Any]] = []

    def play() -> None:
        """Take the pod that reads the volume, as a scheduler and a kubelet would."""
        found = eventually(lambda: [pod for pod in namespace.pods() if pod.startswith("digits-results-")])[0]
        played.append(namespace.pods()[found])
        kubelet.take(found)
        namespace.run_pod(found)

    kubelet_of_the_pod = threading.Thread(target=play)
    kubelet_of_the_pod.start()
    code, _, err = collective("plot", "digits", "-o", str(tmp_path / "digits.svg"))
    kubelet_of_the_pod.join(30)
    assert code == 0 and "reads its volume" in err
    assert (tmp_path / "digits.svg").read_text().startswith("<?xml")
    (pod,) = played
    assert pod["spec"]["containers"][0]["image"] == "operator:test", "the coordinator's, which its ConfigMap tells"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == namespace.task()["metadata"]["uid"]
    assert not [one for one in namespace.pods() if one.startswith("digits-results-")], "it is deleted after"


def test_who_may_not_is_told_so(namespace: Namespace, collective: Collective, tmp_path: Path) -> None:
    namespace.plane.request("POST", namespace.tasks, manifest(suspend=True))
    token = namespace.plane.kubectl("-n", namespace.name, "create", "token", "default").stdout.strip()
    config = json.loads(namespace.plane.kubectl("config", "view", "--raw", "-o", "json").stdout)
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "stranger").write_text(json.dumps(config))
    for command in ("list", "status", "results", "suspend"):
        task = () if command == "list" else ("digits",)
        code, _, err = collective(command, *task, "--kubeconfig", str(tmp_path / "stranger"))
        assert code == 1 and "cannot" in err and "collectivetasks" in err, err
