"""What a learner answers while its modules are being imported, and how it leaves then."""

from __future__ import annotations

import os
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collective_learner import DefaultMliFactory, GRPCServer
from collective_learner.wire import interface_pb2 as pb

SERVICE = "contract_learn.grpc.GRPCLearner"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

WAITS = """
open({gate!r}).read()
"""
TAKES_SIGNALS = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which only the main thread may
signal.set_wakeup_fd(-1)
"""
STUCK = """
import ctypes
lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(lock)
open({gate!r}).read()
libc.pthread_mutex_lock(lock)  # for ever: not even a signal's handler runs in this thread any more
"""


class Starting:
    """A server whose module waits at a gate, and the ways to ask it."""

    def __init__(self, servers, folder: Path, text: str, port: int, *options: str) -> None:
        self.gate = folder / "gate"
        self.metrics = f"http://127.0.0.1:{port}"
        os.mkfifo(self.gate)
        (folder / "tardy.py").write_text(text.format(gate=str(self.gate)))
        self.server = servers.start(f"--metrics-port={port}", "--import=tardy", f"--code={folder}", *options)
        self.channel = self.server.channel()
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def open_gate(self) -> None:
        with self.gate.open("w"):
            pass

    def says(self, service: str) -> int:
        return self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.metrics}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Watched:
    """What a watcher of the health hears."""

    def __init__(self, health: health_pb2_grpc.HealthStub, service: str) -> None:
        self.heard: list[int] = []
        self.call = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=90)
        self.thread = threading.Thread(target=self._hear, daemon=True)
        self.thread.start()

    def _hear(self) -> None:
        try:
            for response in self.call:
                self.heard.append(response.status)
        except grpc.RpcError:
            pass


@pytest.fixture
def starting(servers, tmp_path: Path, free_port: int):
    return lambda text, *options: Starting(servers, tmp_path, text, free_port, *options)


def test_a_server_answers_while_it_imports_and_learns_afterwards(starting, connect, eventually, tmp_path: Path) -> None:
    start = starting(WAITS + TAKES_SIGNALS, "--grace=50")
    peer = connect(start.server)
    watched = [Watched(start.health, name) for name in ("", SERVICE, SERVICE)]
    assert peer.stub.QueryVersion(Empty(), timeout=30).version == "1.0.0"
    assert [start.says(name) for name in ("", SERVICE, "liveness")] == [NOT_SERVING, NOT_SERVING, SERVING]
    assert peer.status() == pb.NO_MODEL
    assert start.page("/healthz") == (200, "ok\n")
    assert start.page("/readyz") == (503, "not serving\n")
    assert 'collective_rpc_total{code="OK",method="QueryVersion"} 1.0' in start.page("/metrics")[1]
    with pytest.raises(grpc.RpcError, match="there is no model yet; call MLSetup first") as refused:
        peer.current()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    for ask in (lambda: peer.stub.QuerySupportedSystem(Empty(), timeout=0.2), lambda: peer.setup(timeout=0.2)):
        with pytest.raises(grpc.RpcError) as late:
            ask()
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    watched.pop().call.cancel()  # who leaves does not take the others along

    setup = pb.RequestMLSetup(
        dataset_loader_name="TINY_DATA", dataset_loader_parameters='{"location": "3"}', model_arch_name="TINY"
    )
    setting_up = peer.stub.MLSetup.future(setup, timeout=60)
    offered = peer.stub.QuerySupportedSystem.future(Empty(), timeout=60)
    assert peer.status() == pb.NO_MODEL
    assert not setting_up.done()
    start.open_gate()
    assert setting_up.result().status == pb.SUCCESS
    assert "TINY" in [model.name for model in offered.result().model_architectures]
    assert [start.says(name) for name in ("", SERVICE, "liveness")] == [SERVING] * 3
    assert peer.status() == pb.WORKING
    assert start.page("/readyz") == (200, "ok\n")

    refused_one = peer.setup(size=-1)
    assert refused_one.status == pb.ERROR
    assert start.says(SERVICE) == SERVING, "the model before is still there"

    peer.setup(mark=str(tmp_path), faults={"propose": f"until:{tmp_path / 'go'}"})
    training = peer.proposing(timeout=60)
    eventually(lambda: list(tmp_path.glob("propose-*")), what="training")
    eventually(lambda: all(each.heard[-1:] == [SERVING] for each in watched), what="word of the beginning")
    start.server.terminate()  # heard although a module took the signal for itself
    eventually(lambda: all(each.heard[-1] == NOT_SERVING for each in watched), what="word of the end")
    (tmp_path / "go").touch()
    with pytest.raises(grpc.RpcError):
        list(training)
    assert start.server.wait() == 0
    assert [each.heard for each in watched] == [[NOT_SERVING, SERVING, NOT_SERVING]] * 2


def test_an_import_that_fails_fails_what_waits_and_ends_the_process_with_its_words(
    starting, connect, eventually
) -> None:
    start = starting(WAITS + "raise RuntimeError('no moon tonight')", "--grace=100")
    peer = connect(start.server)
    streams = peer.stub.StatusStream(iter_forever(), timeout=90)
    assert next(streams).status == pb.NO_MODEL
    waiting = [
        peer.stub.QuerySupportedSystem.future(Empty(), timeout=60),
        peer.stub.MLSetup.future(pb.RequestMLSetup(), timeout=60),
    ]
    more = [peer.stub.QuerySupportedSystem.future(Empty(), timeout=60) for _ in range(70)]
    eventually(lambda: sum(call.done() for call in more) == 8, what="word that too many wait")
    assert {call.code() for call in more if call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    start.open_gate()
    for call in waiting:
        error = call.exception()
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "--import tardy failed: RuntimeError: no moon tonight" in error.details()
    assert start.server.wait() == 78
    *_, begin, where, line = start.server.log().rstrip().splitlines()
    assert begin == "Error: --import tardy failed: RuntimeError: no moon tonight"
    assert "tardy.py" in where
    assert "no moon" in line


def iter_forever():
    yield pb.RequestStatus()
    threading.Event().wait(90)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_an_import_that_nothing_interrupts(
    starting, connect, number: signal.Signals, status: int
) -> None:
    start = starting(STUCK, "--grace=100")
    peer = connect(start.server)
    waiting = peer.stub.MLSetup.future(pb.RequestMLSetup(), timeout=60)
    assert peer.status() == pb.NO_MODEL
    start.open_gate()
    start.server.process.send_signal(number)
    error = waiting.exception()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "the learner is stopping" in error.details()
    assert start.server.wait() == status


def test_a_signal_during_an_import_that_ends_is_only_a_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    server = GRPCServer(DefaultMliFactory(), 0, "127.0.0.1")
    server.run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert not server.stuck
    assert signal.getsignal(signal.SIGTERM) is before
