"""Learners' servers in processes of their own, each ended with its test, whatever happened."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

HERE = Path(__file__).parent
WAIT_S = 60


def eventually(check: Callable[[], object], *, what: str, within: float = WAIT_S) -> object:
    """Wait, bounded, until a check gives something true."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {within} s")


@dataclass
class Server:
    """One process that serves a learner."""

    process: subprocess.Popen[bytes]
    log_file: Path
    port: int = 0
    channels: list[grpc.Channel] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.log_file.read_text()

    def channel(self) -> grpc.Channel:
        self.channels.append(grpc.insecure_channel(self.address, options=(("grpc.use_local_subchannel_pool", 1),)))
        return self.channels[-1]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, within: float = WAIT_S) -> int:
        return self.process.wait(within)


class Servers:
    """Starts servers and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Server] = []

    def spawn(self, *arguments: str, **environment: str) -> Server:
        log_file = self.folder / f"log-{len(self.started)}"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments], stderr=log, stdout=log, cwd=HERE, env={**os.environ, **environment}
            )
        self.started.append(Server(process, log_file))
        return self.started[-1]

    def start(self, *options: str, program: tuple[str, ...] = ("-m", "collective_learner", "--import=tiny")) -> Server:
        fixed = ("--port=0", "--metrics-port=0", "--host=127.0.0.1") if program[0] == "-m" else ()
        server = self.spawn(*program, *fixed, *options)

        def listening() -> re.Match[str] | None:
            if server.process.poll() is not None:
                raise AssertionError(f"the server ended with {server.process.returncode}:\n{server.log()}")
            return re.search(r"listening on 127\.0\.0\.1:(\d+)", server.log())

        found = eventually(listening, what="listening")
        assert isinstance(found, re.Match)
        server.port = int(found[1])
        return server

    def close(self) -> None:
        for server in self.started:
            for channel in server.channels:
                channel.close()
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait(WAIT_S)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Servers for one test."""
    started = Servers(tmp_path)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module that leave it alive; each sets its learner up anew."""
    started = Servers(tmp_path_factory.mktemp("shared"))
    try:
        yield started.start("--max-weights-bytes=200000000")
    finally:
        started.close()
