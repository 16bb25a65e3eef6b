"""Starting, training while others ask, and stopping."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import safetensors.numpy
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collective_learner import DefaultMliFactory, GRPCLearnerClient, GRPCServer
from collective_learner.wire import interface_pb2 as pb


def trains(folder: Path):
    """Tell whether a training has begun."""
    return lambda: list(folder.glob("propose-*"))


def test_others_ask_while_it_trains_and_who_gave_up_holds_nothing(
    peer, tmp_path: Path, connect, shared, eventually
) -> None:
    peer.setup(mark=str(tmp_path), faults={"propose": f"until:{tmp_path / 'go'}"})
    before = peer.current()
    late = peer.proposing(timeout=6)  # time enough for it to arrive
    eventually(trains(tmp_path), what="training")
    with pytest.raises(grpc.RpcError) as given_up:
        list(late)
    assert given_up.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert peer.status() == pb.WORKING
    assert peer.stub.QueryVersion(Empty(), timeout=30).version
    health = health_pb2_grpc.HealthStub(shared.channel()).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    waiting = connect(shared).proposing(timeout=60)  # its turn comes after this training
    (tmp_path / "go").touch()
    assert safetensors.numpy.load(peer.joined(waiting)[0])["n"] == 1
    assert peer.current() == before
    assert len(trains(tmp_path)()) == 2


def test_one_at_a_time_in_order(peer, tmp_path: Path, connect, shared, eventually) -> None:
    peer.setup(mark=str(tmp_path), faults={"propose": f"until:{tmp_path / 'go'}"})
    calls = [connect(shared).proposing(timeout=60) for _ in range(5)]
    eventually(trains(tmp_path), what="training")
    cancelled = calls.pop()
    cancelled.cancel()
    assert len(trains(tmp_path)()) == 1
    (tmp_path / "go").touch()
    for call in calls:
        assert len(peer.joined(call)[0])
    assert 4 <= len(trains(tmp_path)()) <= 5


def test_a_setup_whose_caller_gave_up_changes_nothing(peer, tmp_path: Path) -> None:
    peer.set(safetensors.numpy.save({"w": np.array([1, 2], np.float32), "n": np.array(3)}))
    before = peer.current()
    with pytest.raises(grpc.RpcError) as late:
        peer.setup(loader={"faults": {"load": f"until:{tmp_path / 'go'}"}}, timeout=0.3)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (tmp_path / "go").touch()
    assert peer.current() == before


def test_sigterm_ends_an_idle_server_whatever_streams_are_open(servers, connect) -> None:
    server = servers.start("--grace=100")
    peer = connect(server)
    assert peer.stub.QuerySupportedSystem(Empty(), timeout=60).data_loaders
    release = threading.Event()

    def requests():
        yield pb.RequestStatus()
        release.wait(90)

    answers = peer.stub.StatusStream(requests(), timeout=90)
    assert next(answers).status == pb.NO_MODEL
    server.terminate()
    try:
        assert server.wait(60) == 0  # long before the grace is over
    finally:
        release.set()
    with pytest.raises(grpc.RpcError):
        next(answers)


def test_what_a_training_gives_after_sigterm_is_thrown_away(servers, connect, tmp_path: Path, eventually) -> None:
    server = servers.start("--grace=50")
    peer = connect(server)
    peer.setup(mark=str(tmp_path), faults={"propose": f"until:{tmp_path / 'go'}"})
    call = peer.proposing(timeout=60)
    eventually(trains(tmp_path), what="training")
    server.terminate()
    eventually(lambda: "stopping" in server.log(), what="stopping")
    (tmp_path / "go").touch()  # it may have been cut short
    with pytest.raises(grpc.RpcError, match="the learner is stopping") as stopped:
        peer.joined(call)
    assert stopped.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.wait() == 0


def test_sigterm_ends_a_server_whose_training_is_stuck(servers, connect, tmp_path: Path, eventually) -> None:
    server = servers.start("--grace=2")
    peer = connect(server)
    peer.setup(mark=str(tmp_path), faults={"propose": "hang"})
    call = peer.proposing(timeout=90)
    eventually(trains(tmp_path), what="training")
    server.terminate()
    assert server.wait() == 0
    with pytest.raises(grpc.RpcError):
        list(call)


def test_a_second_signal_hurries(servers, connect, tmp_path: Path, eventually) -> None:
    server = servers.start("--grace=3000")
    peer = connect(server)
    peer.setup(mark=str(tmp_path), faults={"propose": "hang"})
    call = peer.proposing(timeout=90)
    eventually(trains(tmp_path), what="training")
    server.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in server.log(), what="stopping")
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0
    with pytest.raises(grpc.RpcError):
        list(call)


def test_a_learner_that_is_killed_is_an_error_with_words(servers, connect) -> None:
    server = servers.start()
    connect(server).setup(faults={"propose": "kill"})
    client = GRPCLearnerClient("site-a", server.address)
    client.start()
    try:
        with pytest.raises(RuntimeError, match="site-a: ProposeWeights ended with UNAVAILABLE"):
            client.mli_propose_weights()
    finally:
        client.stop()
    assert server.wait() == 9


def test_a_port_that_is_taken_is_one_clear_error(servers, shared) -> None:
    second = servers.spawn("-m", "collective_learner", f"--port={shared.port}", "--host=127.0.0.1", "--metrics-port=0")
    assert second.wait() == 1
    assert second.log().strip() == f"Error: cannot listen on 127.0.0.1, port {shared.port}: Address already in use"
    third = servers.spawn("-m", "collective_learner", "--port=0", "--host=127.0.0.1", f"--metrics_port={shared.port}")
    assert third.wait() == 1
    assert third.log().strip() == f"Error: cannot listen on 127.0.0.1, port {shared.port}: Address already in use"


def test_metrics_tell_calls_and_times(servers, connect, free_port: int, eventually) -> None:
    server = servers.start(f"--metrics-port={free_port}")
    peer = connect(server)
    peer.setup(faults={"test": "raise"})
    data, _ = peer.propose()
    peer.propose()
    with pytest.raises(grpc.RpcError):
        peer.test(data)
    with pytest.raises(grpc.RpcError):
        peer.test(b"")

    def read() -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=30) as answer:
            told = answer.read().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in told if not line.startswith("#"))

    # A call is counted when it has ended, which its caller may see before.
    eventually(
        lambda: 'collective_rpc_total{code="INVALID_ARGUMENT",method="TestWeights"}' in read(), what="the last call"
    )
    lines = read()
    assert lines['collective_rpc_total{code="OK",method="ProposeWeights"}'] == "2.0"
    assert lines['collective_rpc_total{code="OK",method="MLSetup"}'] == "1.0"
    assert lines['collective_rpc_total{code="INTERNAL",method="TestWeights"}'] == "1.0"
    assert lines['collective_rpc_total{code="INVALID_ARGUMENT",method="TestWeights"}'] == "1.0"
    assert lines["collective_train_seconds_count"] == "2.0"
    assert lines["collective_test_seconds_count"] == "1.0"
    assert lines["collective_examples_total"] == "34.0"


def test_a_server_can_run_beside_other_code() -> None:
    server = GRPCServer(DefaultMliFactory(), port=0, host="127.0.0.1", grace_s=5)
    server.start()
    try:
        with GRPCLearnerClient("beside", f"127.0.0.1:{server.port}") as client:
            assert client.version() == "1.0.0"
            assert client.status() == "NO_MODEL"
        other = GRPCServer(DefaultMliFactory(), port=server.port, host="127.0.0.1")
        with pytest.raises(OSError, match="cannot listen"):
            other.start()
    finally:
        server.stop()
    server.stop()
    assert not server.stuck


def test_sigterm_while_a_users_module_is_imported(tmp_path: Path, eventually) -> None:
    """As a container's first process it would not hear a signal that it has no handler for."""
    (tmp_path / "tardy.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(300)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "collective_learner", "--port=0", "--metrics-port=0", "--import=tardy"], cwd=tmp_path
    )
    try:
        eventually((tmp_path / "begun").exists, what="import")
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait(60)
