"""Options on their way to a training, and trainings that are told to stop: by callers that go away, and by SIGTERM."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import pytest
import safetensors.numpy
from google.protobuf.empty_pb2 import Empty

from collective_learner import GRPCLearnerClient, LearnerCallError, TrainingOptions, TrainingStoppedError
from collective_learner.wire import interface_pb2 as pb

SERVE = ("-m", "collective_learner", "--import=stoppable")
LONG = 3000
"""Seconds of grace that no test waits for."""


def set_up(peer, folder: Path, manner: str = "obedient") -> None:
    answer = peer.stub.MLSetup(
        pb.RequestMLSetup(
            dataset_loader_name="FOLDER",
            dataset_loader_parameters=f'{{"location": "{folder}"}}',
            model_arch_name="STOPPABLE",
            model_parameters=f'{{"manner": "{manner}"}}',
        ),
        timeout=60,
    )
    assert answer.status == pb.SUCCESS, answer.description


def trainings(folder: Path, count: int = 1):
    return lambda: len(list(folder.glob("training-*"))) >= count


@pytest.fixture(scope="module")
def stoppable(servers_of_module):
    return servers_of_module.start(program=SERVE)


def test_options_reach_the_training_and_an_empty_request_means_none(stoppable, connect, tmp_path: Path) -> None:
    peer = connect(stoppable)
    set_up(peer, tmp_path)
    (tmp_path / "quick").touch()

    def trained_with(request) -> list[float]:
        return safetensors.numpy.load(peer.joined(peer.stub.ProposeWeights(request, timeout=60))[0])["w"].tolist()

    assert trained_with(pb.RequestProposeWeights(round=2**40, proximal_mu=0.25)) == [2**40, 0.25]
    assert trained_with(Empty()) == [0, 0]
    with GRPCLearnerClient("site-a", stoppable.address) as client:
        client.mli_set_training_options(TrainingOptions(round=7, proximal_mu=1.5))
        assert client.mli_propose_weights().weights["w"].tolist() == [7, 1.5]


@pytest.mark.parametrize("mu", [-1, float("nan"), float("inf")])
def test_options_out_of_range_are_refused(stoppable, connect, tmp_path: Path, mu: float) -> None:
    peer = connect(stoppable)
    set_up(peer, tmp_path)
    with pytest.raises(grpc.RpcError, match=r"proximal_mu: .* a number of at least 0 is needed") as refused:
        peer.joined(peer.stub.ProposeWeights(pb.RequestProposeWeights(proximal_mu=mu), timeout=60))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not trainings(tmp_path)()
    with pytest.raises(ValueError, match="round: -1"):
        TrainingOptions(round=-1)


def test_a_learner_without_a_proximal_term_refuses_one_and_trains_without(peer, shared, tmp_path: Path) -> None:
    peer.setup(mark=str(tmp_path))
    with GRPCLearnerClient("site-a", shared.address) as client:
        client.mli_set_training_options(TrainingOptions(proximal_mu=0.1))
        with pytest.raises(LearnerCallError, match=r"proximal_mu: 0.1; TinyLearner has no proximal term") as refused:
            client.mli_propose_weights()
        assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED
        assert not list(tmp_path.glob("propose-*"))
        client.mli_set_training_options(TrainingOptions(round=3))
        assert client.mli_propose_weights().weights["n"] == 1


@pytest.mark.parametrize("manner", ["obedient", "deaf at first", "raises"])
@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_training_ends_when_its_caller_goes_away(
    stoppable, connect, tmp_path: Path, eventually, manner: str, how: str
) -> None:
    peer = connect(stoppable)
    set_up(peer, tmp_path, manner)
    before = peer.current()
    call = peer.stub.ProposeWeights(Empty(), timeout=60 if how == "cancelled" else 0.5)
    if how == "cancelled":
        eventually(trainings(tmp_path), what="training")
        call.cancel()
    with pytest.raises(grpc.RpcError):
        list(call)
    assert peer.current() == before  # its turn has come, so the training has ended
    (tmp_path / "quick").touch()
    if manner != "deaf at first":
        assert len(peer.propose()[0])
    assert manner != "raises" or "stop it yourself" in stoppable.log()


def test_no_word_comes_late(stoppable, connect, tmp_path: Path, eventually) -> None:
    peer = connect(stoppable)
    set_up(peer, tmp_path)
    for number in range(10):
        (tmp_path / "quick").unlink(missing_ok=True)
        call = peer.stub.ProposeWeights(Empty(), timeout=60)
        eventually(trainings(tmp_path, 2 * number + 1), what="training")
        (tmp_path / "quick").touch()  # for those that follow: this one may be in its wait already, or about to end
        call.cancel()
        assert len(peer.propose()[0])


def test_a_cancelled_training_that_waits_for_its_turn_never_begins(
    stoppable, connect, tmp_path: Path, eventually
) -> None:
    peer = connect(stoppable)
    set_up(peer, tmp_path)
    first = peer.stub.ProposeWeights(Empty(), timeout=60)
    eventually(trainings(tmp_path), what="training")
    with pytest.raises(grpc.RpcError):
        peer.propose(timeout=0.3)
    first.cancel()
    peer.current()
    assert len(list(tmp_path.glob("training-*"))) == 1


def test_a_client_stops_its_training_from_another_thread(stoppable, connect, tmp_path: Path, eventually) -> None:
    set_up(connect(stoppable), tmp_path)
    outcome: list[Exception] = []
    with GRPCLearnerClient("site-a", stoppable.address) as client:

        def train() -> None:
            try:
                client.mli_propose_weights()
            except (TrainingStoppedError, LearnerCallError) as error:
                outcome.append(error)

        thread = threading.Thread(target=train, daemon=True)
        thread.start()
        eventually(trainings(tmp_path), what="training")
        client.mli_stop_training()
        thread.join(60)
        assert [type(error) for error in outcome] == [TrainingStoppedError]
        (tmp_path / "quick").touch()
        assert client.mli_propose_weights().weights["w"].tolist() == [0, 0]


def test_sigterm_stops_a_training_and_the_server(servers, connect, tmp_path: Path, eventually) -> None:
    server = servers.start(f"--grace={LONG}", program=SERVE)
    peer = connect(server)
    set_up(peer, tmp_path)
    call = peer.stub.ProposeWeights(Empty(), timeout=90)
    eventually(trainings(tmp_path), what="training")
    waiting = connect(server).stub.ProposeWeights(Empty(), timeout=90)
    connect(server).status()  # by now the one that waits has arrived
    server.terminate()
    assert server.wait() == 0
    for each in (call, waiting):
        with pytest.raises(grpc.RpcError) as stopped:
            list(each)
        assert stopped.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(list(tmp_path.glob("training-*"))) == 1


def test_sigterm_does_not_wait_for_the_stubborn(servers, connect, tmp_path: Path, eventually) -> None:
    server = servers.start("--grace=1", program=SERVE)
    peer = connect(server)
    set_up(peer, tmp_path, "stubborn")
    call = peer.stub.ProposeWeights(Empty(), timeout=90)
    eventually(trainings(tmp_path), what="training")
    server.terminate()
    assert server.wait() == 0
    with pytest.raises(grpc.RpcError):
        list(call)
