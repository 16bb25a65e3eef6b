"""Learners' servers in processes of their own, each ended with its test, whatever happened."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.interface_pb2_grpc import GRPCLearnerStub

from .. import ports

collect_ignore = ["keras_cases"]
"""Their conftest imports TensorFlow, which has a process of its own: see test_keras.py."""

HERE = Path(__file__).parent
WAIT_S = 120


def wait_until(check: Callable[[], object], *, what: str, within: float = WAIT_S) -> object:
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
    has_children: bool = False
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

        found = wait_until(listening, what="listening")
        assert isinstance(found, re.Match)
        server.port = int(found[1])
        return server

    def close(self) -> None:
        for server in self.started:
            for channel in server.channels:
                channel.close()
        for server in self.started:
            if server.process.poll() is None and server.has_children:
                server.terminate()  # killed, it would leave them behind
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.process.wait(WAIT_S)
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
def servers_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers for all tests of a module."""
    started = Servers(tmp_path_factory.mktemp("shared"))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def shared(servers_of_module: Servers) -> Server:
    """One server for the tests of a module that leave it alive; each sets its learner up anew."""
    return servers_of_module.start("--max-weights-bytes=20000000")


class Peer:
    """A plain peer: generated messages and stubs, parts of 4,000,000 bytes with byte_index, no additions."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = GRPCLearnerStub(channel)
        self._propose = channel.unary_stream(
            "/contract_learn.grpc.GRPCLearner/ProposeWeights", Empty.SerializeToString, pb.WeightsPart.FromString
        )

    def setup(
        self,
        *,
        location: str = "3",
        seed: int | None = None,
        loader: dict[str, Any] | None = None,
        timeout: float = WAIT_S,
        **model: Any,
    ) -> pb.ResponseMLSetup:
        for parameters in (model, loader or {}):
            if "faults" in parameters:
                parameters["faults"] = json.dumps(parameters["faults"])
        return self.stub.MLSetup(
            pb.RequestMLSetup(
                dataset_loader_name="TINY_DATA",
                dataset_loader_parameters=json.dumps({"location": location, **(loader or {})}),
                model_arch_name="TINY",
                model_parameters=json.dumps(model),
                seed=seed,
            ),
            timeout=timeout,
        )

    def parts(self, data: bytes, size: int = 4_000_000) -> Iterator[pb.WeightsPart]:
        for at in range(0, len(data), size):
            yield pb.WeightsPart(weights=data[at : at + size], byte_index=at, total_bytes=len(data))

    def test(self, parts: bytes | Iterable[pb.WeightsPart], timeout: float = WAIT_S) -> pb.ProposedWeights:
        parts = self.parts(parts) if isinstance(parts, bytes) else iter(parts)
        return self.stub.TestWeights(parts, timeout=timeout)

    def set(self, parts: bytes | Iterable[pb.WeightsPart], timeout: float = WAIT_S) -> Empty:
        return self.stub.SetWeights(self.parts(parts) if isinstance(parts, bytes) else iter(parts), timeout=timeout)

    def accept(self, digest: bytes) -> Empty:
        return self.stub.AcceptWeights(pb.RequestAcceptWeights(digest=digest), timeout=WAIT_S)

    def test_proposal(self, name: bytes) -> pb.ProposedWeights:
        return self.stub.TestProposal(pb.RequestTestProposal(proposal=name), timeout=WAIT_S)

    def propose_as(self, name: bytes) -> bytes:
        return self.joined(self.stub.ProposeWeights(pb.RequestProposeWeights(proposal=name), timeout=WAIT_S))[0]

    def propose(self, timeout: float = WAIT_S) -> tuple[bytes, list[pb.WeightsPart]]:
        return self.joined(self.proposing(timeout))

    def proposing(self, timeout: float = WAIT_S) -> Any:
        """Begin a training, as peers do that know no options: with an Empty."""
        return self._propose(Empty(), timeout=timeout)

    def current(self) -> bytes:
        return self.joined(self.stub.GetCurrentWeights(Empty(), timeout=WAIT_S))[0]

    @staticmethod
    def joined(answer: Iterable[pb.WeightsPart]) -> tuple[bytes, list[pb.WeightsPart]]:
        parts = list(answer)
        data = b"".join(part.weights for part in parts)
        at = 0
        for part in parts:
            assert part.byte_index == at
            assert part.total_bytes == len(data)
            at += len(part.weights)
        return data, parts

    def status(self) -> int:
        return next(iter(self.stub.StatusStream(iter([pb.RequestStatus()]), timeout=WAIT_S))).status


@pytest.fixture
def peer(shared: Server) -> Peer:
    """A plain peer of the shared server, whose learner was set up anew; the model has two numbers and aims at 3."""
    peer = Peer(shared.channel())
    assert peer.setup().status == pb.SUCCESS
    return peer


@pytest.fixture
def connect() -> Callable[[Server], Peer]:
    """Make a plain peer of any server."""
    return lambda server: Peer(server.channel())


@pytest.fixture
def free_range() -> Callable[[int], int]:
    """Give the first of consecutive ports that are this test's alone."""
    return ports.free_ports


@pytest.fixture
def eventually() -> Callable[..., object]:
    """Wait, bounded, until something is true."""
    return wait_until


@pytest.fixture
def free_port() -> int:
    """A port that is this test's alone, and on which nobody listens yet."""
    return ports.free_port()
