"""How soon a learner answers whose module imports a framework, against that import alone."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.benchmarks.harness import Row, compare

from collective_learner.wire.interface_pb2_grpc import GRPCLearnerStub

FRAMEWORKS = ("torch", "tensorflow", "keras")
_WAIT_S = 120.0


@dataclass(frozen=True)
class Start:
    """Seconds from the start of a learner's process."""

    answered: float
    """To the version and the health."""
    prepared: float
    """To what its modules registered."""


def start(repeats: int) -> Iterator[Row]:
    """Start learners and bare interpreters in turn, after one of each for the caches."""
    for framework in FRAMEWORKS:
        if importlib.util.find_spec(framework) is None:
            continue
        imports: list[float] = []
        starts: list[Start] = []
        for _ in range(1 + repeats):
            imports.append(bare(framework))
            starts.append(serving(framework))
        del imports[0], starts[0]
        answered = [each.answered for each in starts]
        prepared = [each.prepared for each in starts]
        yield compare(f"time to the first answer, import {framework}", answered, imports, unit="s", bar="<= 0.5")
        yield compare("  until it tells what is registered", prepared, imports, unit="s", bar="")


def bare(framework: str) -> float:
    """Import it, and nothing else."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {framework}"], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def serving(framework: str) -> Start:
    """Start a learner that imports it, and ask until it has answered everything."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        Path(folder, "brings_framework.py").write_text(f"import {framework}\n")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = ["--host=127.0.0.1", f"--port={port}", "--metrics-port=0", "--import=brings_framework"]
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "collective_learner", *command, f"--code={folder}"], stderr=subprocess.DEVNULL
        )
        try:
            _connect(port)
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                learner, health = GRPCLearnerStub(channel), health_pb2_grpc.HealthStub(channel)
                assert learner.QueryVersion(Empty(), timeout=_WAIT_S).version
                said = health.Check(health_pb2.HealthCheckRequest(), timeout=_WAIT_S)
                answered = time.perf_counter() - started
                assert said.status == health_pb2.HealthCheckResponse.NOT_SERVING
                assert learner.QuerySupportedSystem(Empty(), timeout=_WAIT_S).model_architectures
                return Start(answered, time.perf_counter() - started)
        finally:
            process.kill()
            process.wait()


def _connect(port: int) -> None:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.002)
    raise TimeoutError(f"nobody listens on port {port}")
