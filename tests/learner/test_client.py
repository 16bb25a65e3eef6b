"""Our client, with our server and with a plain foreign one that may lie."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from collective_learner import (
    DiffPrivBudget,
    ErrorCodes,
    GRPCLearnerClient,
    LearnerCallError,
    ModelFormat,
    TrainingSummary,
    Weights,
)
from collective_learner.connection import wait_for_server
from collective_learner.messages import summary_from_bytes, summary_to_bytes


@contextlib.contextmanager
def client_of(server, **options) -> Iterator[GRPCLearnerClient]:
    client = GRPCLearnerClient("site-a", server.address, **options)
    client.start()
    try:
        yield client
    finally:
        client.stop()


@pytest.fixture(scope="module")
def foreign(servers_of_module):
    """A foreign learner, and how to tell it its lie."""
    lie_file = servers_of_module.folder / "lie"
    lie_file.write_text("")
    server = servers_of_module.start(str(lie_file), program=("plain_server.py",))
    return server, lie_file.write_text


def setup(client: GRPCLearnerClient, **model: object) -> str:
    return client.setup_ml("TINY_DATA", {"location": "3"}, "TINY", model, seed=1)


def test_a_round_with_our_own_server(shared, tmp_path: Path) -> None:
    with client_of(shared) as client:
        assert client.probe()["compatibilities"]["TINY"] == ["TINY_DATA"]
        assert "2 tensors" in setup(client, mark=str(tmp_path), as_list=True)
        assert client.status() == "WORKING"
        proposal = client.mli_propose_weights()
        assert isinstance(proposal.weights, list)
        assert proposal.training_summary == TrainingSummary(
            dp_budget=DiffPrivBudget(target_epsilon=4, target_delta=0.5, consumed_epsilon=1, consumed_delta=0.25),
            examples=17,
            metrics={"loss": 0.125},
        )
        verdict = client.mli_test_weights(proposal)
        assert (verdict.vote_score, verdict.test_score, verdict.vote) == (1.5, 0.75, True)
        assert verdict.weights is proposal
        client.mli_accept_weights(proposal)
        assert client.mli_get_current_weights().weights[0].tolist() == [1.5, 1.5]
        model = client.mli_get_current_model()
        assert (model.model_format, model.description) == (ModelFormat.ONNX, "there is no other")
        other = Weights([np.array([2, 2], np.float32), np.array(9)])
        client.mli_test_weights(proposal)
        client.mli_accept_weights(other)
        assert client.mli_get_current_weights().weights[1] == 9
        assert len(list(tmp_path.glob("accept-*"))) == 2


def test_what_was_tested_and_forgotten_is_sent_again(shared, connect) -> None:
    with client_of(shared) as client:
        setup(client)
        proposal = client.mli_propose_weights()
        client.mli_test_weights(proposal)
        connect(shared).propose()  # a training forgets what was tested
        client.mli_accept_weights(proposal)
        assert client.mli_get_current_weights().weights["w"].tolist() == [1.5, 1.5]


def test_errors_name_the_learner_the_call_and_the_reason(shared) -> None:
    with client_of(shared) as client:
        with pytest.raises(LearnerCallError, match="site-a: MLSetup: there is no model 'NONE'; registered") as refused:
            client.setup_ml("TINY_DATA", {"location": "3"}, "NONE", {})
        assert refused.value.code is None
        setup(client)
        with pytest.raises(LearnerCallError, match=r"TestWeights ended with INVALID_ARGUMENT: .*'w'") as refused:
            client.mli_test_weights(Weights({"w": np.zeros(3, np.float32), "n": np.array(1)}))
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ValueError, match="'w' has the type object"):
            client.mli_test_weights(Weights({"w": np.array([None])}))
    with pytest.raises(RuntimeError, match="site-a: not connected"):
        client.version()


def test_every_call_has_a_deadline(shared, connect, eventually, tmp_path: Path) -> None:
    with client_of(shared) as patient:
        setup(patient, mark=str(tmp_path), faults=f'{{"propose": "until:{tmp_path / "go"}"}}')
    training = connect(shared).proposing()
    eventually(lambda: list(tmp_path.glob("propose-*")), what="training")
    with client_of(shared, timeout_s=2) as client:
        with pytest.raises(LearnerCallError, match="DEADLINE_EXCEEDED"):
            client.mli_propose_weights()
        with pytest.raises(LearnerCallError, match="DEADLINE_EXCEEDED"):  # the learner is still at it
            client.mli_get_current_weights()
    (tmp_path / "go").touch()
    assert list(training)


def test_a_server_that_never_comes_is_given_up_with_every_attempt_told(free_port: int) -> None:
    told: list[tuple[int, bool]] = []
    client = GRPCLearnerClient("nobody", f"127.0.0.1:{free_port}", attempts=2)
    with pytest.raises(LearnerCallError, match="nobody: QueryVersion ended with UNAVAILABLE"):
        client.start(lambda number, failure: told.append((number, failure is None)))
    assert told == [(1, True), (1, False), (2, True), (2, False)]
    with grpc.insecure_channel(f"127.0.0.1:{free_port}") as channel, pytest.raises(ValueError, match="attempts: 0"):
        wait_for_server(channel, learner="x", attempts=0, timeout_s=1)


def test_a_server_that_comes_late_is_waited_for(servers, free_port: int) -> None:
    client = GRPCLearnerClient("late", f"127.0.0.1:{free_port}", attempts=30)
    started = []

    def on_attempt(number: int, failure: str | None) -> None:
        if failure and not started:
            started.append(
                servers.spawn("-m", "collective_learner", f"--port={free_port}", "--metrics-port=0", "--host=127.0.0.1")
            )

    client.start(on_attempt)
    try:
        assert started
        assert client.version() == "1.0.0"
    finally:
        client.stop()


def test_a_foreign_learner_is_driven(foreign) -> None:
    server, lie = foreign
    lie("")
    with client_of(server) as client:
        assert client.version() == "0.2.8"
        assert client.probe() == {
            "compatibilities": {"M": ["D"]},
            "data_loaders": {"D": {"a": 1}},
            "model_architectures": {"M": {}},
        }
        assert client.setup_ml("D", '{"location": "x"}', "M", "", seed=5) == "fine"
        assert client.status() == "WORKING"
        proposal = client.mli_propose_weights()
        assert proposal.weights["w"].tolist()[-1] == 1_499_999
        assert proposal.training_summary == TrainingSummary(
            dp_budget=DiffPrivBudget(target_epsilon=0, target_delta=0, consumed_epsilon=2, consumed_delta=0)
        )
        mine = Weights({"w": np.full(1_200_000, 7, np.float32)})
        verdict = client.mli_test_weights(mine)
        assert (verdict.vote_score, verdict.test_score, verdict.vote) == (7, 0.5, True)
        client.mli_accept_weights(mine)
        assert client.mli_get_current_weights().weights["w"].tolist() == mine.weights["w"].tolist()
        assert client.mli_get_current_model().model == b"12"


@pytest.mark.parametrize(
    ("lie", "call", "message"),
    [
        ("total", "mli_propose_weights", "announce 1152921504606846976 bytes, the limit here is 99000000"),
        ("overlap", "mli_propose_weights", "starts at byte 3999999"),
        ("hole", "mli_get_current_weights", "starts at byte 4000001"),
        ("truncated", "mli_get_current_weights", "ended at byte 4000000 of"),
        ("content", "mli_propose_weights", "pickled|header"),
        ("digest", "mli_propose_weights", "their sender calls 0000"),
        ("error code", "mli_propose_weights", "training summary cannot be read: 99"),
        ("format", "mli_get_current_model", "77 is not a valid ModelFormat"),
        ("json", "probe", "Expecting property name"),
        ("silent", "status", "no status came"),
        ("setup", "setup", "fine"),
    ],
)
def test_a_learner_that_lies_is_found_out(foreign, lie: str, call: str, message: str) -> None:
    server, tell = foreign
    tell(lie)
    with client_of(server, max_weights_bytes=99_000_000) as client:
        calls = {
            "test": lambda: client.mli_test_weights(Weights({"w": np.zeros(3, np.float32)})),
            "setup": lambda: client.setup_ml("D", '{"location": "x"}', "M", ""),
        }
        with pytest.raises(LearnerCallError, match=message) as found:
            calls.get(call, getattr(client, call, None))()
        assert found.value.code is None
        assert found.value.learner == "site-a"


def test_a_learner_without_a_version_is_a_learner(foreign) -> None:
    server, lie = foreign
    lie("no version")
    with client_of(server) as client:
        assert client.status() == "WORKING"


@pytest.mark.parametrize(
    "summary",
    [
        None,
        TrainingSummary(),
        TrainingSummary(examples=3, metrics={"b": 1.5, "a": -2}, error_code=ErrorCodes.DP_BUDGET_EXCEEDED),
    ],
)
def test_summaries_arrive(summary: TrainingSummary | None) -> None:
    assert summary_from_bytes(summary_to_bytes(summary)) == summary
