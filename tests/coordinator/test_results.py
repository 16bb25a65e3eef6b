"""A task's results can be fetched from its coordinator, or from a program that has nothing but the volume."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ..ports import free_port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rounds.jsonl").write_text('{"round":1}\n{"round":2}\n')
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "verdict.json").write_text("{}")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state-x").write_text("secret")
    return tmp_path


Serve = Callable[[float], AbstractContextManager[tuple[subprocess.Popen[str], int]]]


@pytest.fixture
def serve(folder: Path) -> Serve:
    """Serve the folder until nobody has asked for so many seconds."""

    @contextmanager
    def serving(idle_s: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
        module = "collective_coordinator.results"
        command = [sys.executable, "-m", module, "--state-dir", str(folder), "--port", "0"]
        command += ["--idle-seconds", str(idle_s)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield process, int(process.stdout.readline().rsplit(" ", 1)[1])
            process.kill()

    return serving


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def raw(port: int, path: str) -> bytes:
    """Ask for a path as it is, which no library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_served_and_until_when(serve: Serve, folder: Path) -> None:
    with serve(60) as (process, port):
        what_is_served(port, folder)
        assert process.poll() is None
    with serve(0.5) as (process, _):
        assert process.wait(60) == 0, "nobody asks"


def what_is_served(port: int, folder: Path) -> None:
    listed = json.loads(get(port, "/results")[1])["files"]
    assert listed == [{"name": "rounds.jsonl", "size": 24}, {"name": "model.safetensors", "size": 256_000}]
    assert get(port, "/results/model.safetensors") == (200, (folder / "model.safetensors").read_bytes())
    assert get(port, "/results/rounds.jsonl", Range="bytes=12-") == (206, b'{"round":2}\n')
    assert get(port, "/results/rounds.jsonl", Range="bytes=24-")[0] == 416, "nothing new"
    for name in ("model.onnx", "verdict.json", "checkpoint", "checkpoint/state-x", ".lock", ""):
        assert get(port, f"/results/{name}")[0] == 404, name
    for path in ("/results/../verdict.json", "/results/..%2fverdict.json", "/results/%2e%2e/x", "//etc/passwd"):
        assert b" 404 " in raw(port, path).splitlines()[0], path


def test_a_coordinator_serves_its_own_and_on_the_loopback_address_alone(plain, coordinated, wait_until) -> None:
    task = coordinated(plain({}, {}, {}), rounds=100_000)
    port = free_port()
    task.options = ("--results-port", str(port), "--host", "0.0.0.0")
    process = task.start()
    wait_until(lambda: len(task.records()) > 3, "rounds")
    first = json.loads(get(port, "/results/rounds.jsonl")[1].splitlines()[0])
    assert first["round"] == 1
    assert {"rounds.jsonl", "model.bin"} <= {one["name"] for one in json.loads(get(port, "/results")[1])["files"]}
    assert get(task.port(), "/results")[0] == 404, "the port for scores and probes has no models"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=60)
    process.terminate()
    process.wait(60)


def test_another_try_forgets_the_verdict_of_the_one_before(plain, coordinated) -> None:
    task = coordinated(plain({}, {}, {}), rounds=2)
    first = task.run()
    verdict = task.state / "verdict.json"
    verdict.write_text(verdict.read_text().replace('"Complete"', '"Failed"'))
    assert task.run()["phase"] == "Failed", "a verdict is given once"
    assert first["phase"] == "Complete"
    task.config["task"]["retry"] = "2026-01-01T00:00:00Z"
    again = task.run()
    assert (again["phase"], again["round"]["current"]) == ("Complete", 2), task.log
    verdict.write_text(verdict.read_text().replace('"Complete"', '"Failed"'))
    del task.config["task"]["retry"]
    assert task.run()["phase"] == "Complete", "that was another try's"
