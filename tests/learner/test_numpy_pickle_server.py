"""Learners of ours under an orchestrator of the original colearn: generated stubs, and pickle itself at its end."""

from __future__ import annotations

import os
import pickle
import warnings
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from collective_learner import DefaultMliFactory, GRPCServer
from collective_learner.cli import serve
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.digest import digest_of


def unpickled(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy 2 about the name that numpy 1 needs
        return pickle.loads(data)


@pytest.fixture(scope="module")
def fleet(servers_of_module):
    return [servers_of_module.start("--weights-format=numpy-pickle") for _ in range(2)]


@pytest.fixture
def peers(fleet, connect):
    peers = [connect(server) for server in fleet]
    for peer, target in zip(peers, ("3", "4"), strict=True):
        assert peer.setup(location=target).status == pb.SUCCESS
    return peers


def test_the_log_says_it_loudly(fleet, servers) -> None:
    assert "WARNING collective_learner.server: WEIGHTS TRAVEL AS PICKLED NUMPY ARRAYS" in fleet[0].log()
    assert "PICKLED" not in servers.start().log()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_rounds_of_an_original_orchestrator(peers, protocol: int) -> None:
    """It unpickles what one learner proposes, pickles it anew, and hands it to all."""
    for peer in peers:
        peer.set(pickle.dumps([np.zeros(2, np.float32), np.array(0)], protocol=protocol))
    for number in range(2):
        proposed = unpickled(peers[number].propose()[0])
        assert isinstance(proposed, list)
        sent = pickle.dumps(proposed, protocol=protocol)
        verdicts = [peer.test(sent) for peer in peers]
        assert all(verdict.vote for verdict in verdicts)
        for peer in peers:
            peer.set(sent)
    for peer in peers:
        now = unpickled(peer.current())
        assert now[0].tolist() == [2.75, 2.75]
        assert (now[0].dtype, now[1].shape, now[1].dtype) == (np.float32, (), np.int64)
        assert now[1] == 2


def test_arrays_by_name_are_read_as_well(peers) -> None:
    peers[0].set(pickle.dumps({"n": np.array(7), "w": np.ones(2, np.float32)}))
    assert [array.tolist() for array in unpickled(peers[0].current())] == [[1, 1], 7]


def test_what_was_tested_is_accepted_by_its_digest(peers) -> None:
    sent = pickle.dumps([np.full(2, 2, np.float32), np.array(1)])
    assert peers[0].test(sent).vote
    peers[0].accept(digest_of([sent]))
    assert unpickled(peers[0].current())[0].tolist() == [2, 2]


class Runs:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda mark: [Runs(mark), np.array(1)], r"refer to 'posix\.mkdir'"),
        (lambda mark: [np.zeros(2, np.float32)], "are 1 tensors, the model has 2"),
        (lambda mark: [np.zeros(3, np.float32), np.array(1)], r"the tensor 'w' has the shape \(3,\)"),
        (lambda mark: [np.zeros(2, np.float64), np.array(1)], "the tensor 'w' has the type float64"),
        (lambda mark: [np.full(2, np.nan, np.float32), np.array(1)], "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_nothing_runs(peers, tmp_path, make, told: str) -> None:
    before = unpickled(peers[0].current())
    with pytest.raises(grpc.RpcError, match=told) as refused:
        peers[0].set(pickle.dumps(make(str(tmp_path / "ran"))))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not (tmp_path / "ran").exists()
    assert all(map(np.array_equal, before, unpickled(peers[0].current())))


def test_without_the_option_pickles_are_refused(shared, connect) -> None:
    peer = connect(shared)
    peer.setup()
    with pytest.raises(grpc.RpcError, match=r"the weights are pickled.*--weights-format numpy-pickle"):
        peer.set(pickle.dumps([np.zeros(2, np.float32), np.array(0)]))


def test_a_server_can_be_handed_to_a_process_that_is_started_anew() -> None:
    server = pickle.loads(pickle.dumps(GRPCServer(DefaultMliFactory(), port=7, weights_format="numpy-pickle")))
    assert server.port == 7


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="weights_format: 'pickle', 'safetensors' or 'numpy-pickle' is needed"):
        GRPCServer(DefaultMliFactory(), weights_format="pickle")
    assert CliRunner().invoke(serve, ["--weights-format", "pickle"]).exit_code == 2
