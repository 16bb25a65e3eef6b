"""Every RPC, asked by a plain foreign peer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import grpc
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from collective_learner.wire import interface_pb2 as pb


def weights(w, n=1) -> bytes:
    return safetensors.numpy.save({"w": np.asarray(w, np.float32), "n": np.asarray(n, np.int64)})


def test_the_version_and_what_is_offered(peer) -> None:
    assert peer.stub.QueryVersion(Empty(), timeout=60).version == "1.0.0"
    offered = peer.stub.QuerySupportedSystem(Empty(), timeout=60)
    loaders = {item.name: json.loads(item.default_parameters) for item in offered.data_loaders}
    models = {item.name: json.loads(item.default_parameters) for item in offered.model_architectures}
    assert loaders["TINY_DATA"] == {"scale": 1.0, "faults": "{}"}
    assert models["TINY"]["size"] == 2
    together = {item.model_architecture: list(item.dataloaders) for item in offered.compatibilities}
    assert together["TINY"] == ["TINY_DATA"]


def test_a_round_by_hand(peer) -> None:
    data, parts = peer.propose()
    proposal = safetensors.numpy.load(data)
    assert proposal["w"].tolist() == [1.5, 1.5]
    assert proposal["n"] == 1
    assert parts[0].training_summary.dp_budget.consumed_epsilon == 1
    assert parts[0].training_summary.dp_budget.target_delta == 0.5
    assert parts[0].training_summary.examples == 17
    assert dict(parts[0].training_summary.metrics) == {"loss": 0.125}
    before = peer.current()
    assert safetensors.numpy.load(before)["w"].tolist() == [0, 0]
    verdict = peer.test(data)
    assert (verdict.vote_score, verdict.test_score, verdict.vote) == (1.5, 0.75, True)
    assert peer.current() == before
    assert not peer.test(weights([9, 9])).vote
    peer.set(data)
    assert safetensors.numpy.load(peer.current())["w"].tolist() == [1.5, 1.5]
    assert not peer.test(data).vote


@pytest.mark.parametrize("as_list", [False, True])
def test_weights_of_many_parts_arrive_whole(peer, as_list: bool) -> None:
    peer.setup(size=2_600_000, as_list=as_list, random=True, seed=5)
    data = peer.current()
    assert len(data) > 10_400_000
    peer.test(data)
    peer.accept(blake3(data).digest())
    assert peer.current() == data
    peer.set(data)
    assert peer.current() == data


def test_accepting_what_was_tested_needs_no_second_transfer(peer, tmp_path: Path) -> None:
    peer.setup(mark=str(tmp_path))
    digest, other = (blake3(weights([number, number])).digest() for number in (2, 1))
    peer.test(weights([2, 2]))
    peer.test(weights([1, 1]))
    with pytest.raises(grpc.RpcError) as refused:
        peer.accept(digest)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    peer.accept(other)
    assert safetensors.numpy.load(peer.current())["w"].tolist() == [1, 1]
    peer.accept(other)  # an answer that was lost is asked for again
    assert len(list(tmp_path.glob("accept-*"))) == 1
    assert len(list(tmp_path.glob("test-*"))) == 2
    with pytest.raises(grpc.RpcError, match="digest: 3 bytes") as refused:
        peer.accept(b"abc")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    peer.setup()
    with pytest.raises(grpc.RpcError) as refused:
        peer.accept(other)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_one_s_own_proposal_is_tested_where_it_is(peer, tmp_path: Path) -> None:
    peer.setup(mark=str(tmp_path))
    data = peer.propose_as(b"one")
    before = peer.current()
    with pytest.raises(grpc.RpcError, match="was not the last made here") as refused:
        peer.test_proposal(b"two")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    verdict = peer.test_proposal(b"one")  # a wrong name has changed nothing
    assert (verdict.vote_score, verdict.test_score, verdict.vote) == (1.5, 0.75, True)
    assert peer.current() == before
    with pytest.raises(grpc.RpcError) as refused:
        peer.test_proposal(b"one")  # it is a candidate now, and no proposal any more
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    peer.accept(blake3(data).digest())
    assert peer.current() == data
    assert len(list(tmp_path.glob("test-*"))) == 1
    assert len(list(tmp_path.glob("accept-*"))) == 1


def test_a_proposal_gives_its_place_to_other_weights(peer) -> None:
    peer.propose_as(b"one")
    peer.test(weights([1, 1]))
    with pytest.raises(grpc.RpcError) as refused:
        peer.test_proposal(b"one")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_proposal_without_a_name_is_not_known_by_it(peer) -> None:
    peer.propose()
    with pytest.raises(grpc.RpcError, match="proposal: no name") as refused:
        peer.test_proposal(b"")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="proposal: 65 bytes, at most 64") as refused:
        peer.propose_as(bytes(65))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_weights_are_set_only_under_their_own_name(peer) -> None:
    before, data = peer.current(), weights([1, 1])
    part = pb.WeightsPart(weights=data, total_bytes=len(data), digest=blake3(weights([2, 2])).digest())
    with pytest.raises(grpc.RpcError, match="not those that their sender calls") as refused:
        peer.set([part])
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert peer.current() == before
    part.digest = blake3(data).digest()
    peer.set([part])
    assert safetensors.numpy.load(peer.current())["w"].tolist() == [1, 1]


def test_the_model_comes_in_its_own_format(peer) -> None:
    answer = peer.stub.GetCurrentModel(Empty(), timeout=60)
    assert (answer.model_format, answer.model_file, answer.model) == (2, "tiny.onnx", bytes(8))
    peer.setup(size=2_000_000)
    with pytest.raises(grpc.RpcError):  # 8 MB are more than this plain channel takes; the server does send them
        peer.stub.GetCurrentModel(Empty(), timeout=60)


def test_the_model_is_exported_only_of_the_weights_asked_for(peer) -> None:
    def export(digest: bytes, name: str = "onnx") -> bytes:
        request = pb.RequestExportModel(format=name, digest=digest)
        return peer.joined(peer.stub.ExportModel(request, timeout=60))[0]

    assert export(b"") == bytes(8)
    data = weights([1, 1])
    peer.set(data)
    held = blake3(data).digest()
    assert export(held) == np.ones(2, np.float32).tobytes()
    for digest in (b"", blake3(b"").digest()):
        with pytest.raises(grpc.RpcError, match="are not held here") as refused:
            export(digest)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError, match=r"TinyLearner has no exporter\(\)") as refused:
        export(held, "keras")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert safetensors.numpy.load(peer.current())["w"].tolist() == [1, 1]
    peer.setup(size=2_000_000)
    assert len(export(b"")) == 8_000_000  # in parts, so that the size of a message is no limit


def test_the_seed_decides_what_chance_does(peer) -> None:
    def first_weights(seed: int | None) -> bytes:
        assert peer.setup(random=True, seed=seed).status == pb.SUCCESS
        return peer.current()

    assert first_weights(7) == first_weights(7) != first_weights(8)
    assert first_weights(2**64 - 1) == first_weights(2**64 - 1)
    assert first_weights(None) != first_weights(None)


def test_every_status_request_is_answered(servers, connect) -> None:
    server = servers.start()
    peer = connect(server)
    answers = peer.stub.StatusStream(iter([pb.RequestStatus()] * 3), timeout=60)
    assert [answer.status for answer in answers] == [pb.NO_MODEL] * 3
    for call in (
        peer.propose,
        peer.current,
        lambda: peer.test(weights([1, 1])),
        lambda: peer.set(weights([1, 1])),
        lambda: peer.accept(bytes(32)),
        lambda: peer.stub.GetCurrentModel(Empty(), timeout=60),
    ):
        with pytest.raises(grpc.RpcError, match="call MLSetup first") as refused:
            call()
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert peer.setup().status == pb.SUCCESS
    assert peer.status() == pb.WORKING


@pytest.mark.parametrize(
    ("change", "description"),
    [
        ({"model_arch_name": "TINI"}, "no model 'TINI'; registered are "),
        ({"dataset_loader_name": ""}, "no data loader ''; registered are "),
        ({"model_parameters": '{"sise": 1}'}, "no parameter 'sise'; it has as_list, size"),
        ({"model_parameters": "7"}, "must be a JSON object"),
        ({"dataset_loader_parameters": "{}"}, "needs the parameter 'location'"),
        ({"dataset_loader_parameters": '{"location": "x"}'}, "ValueError: could not convert string to float: 'x'"),
        (
            {"dataset_loader_parameters": json.dumps({"location": "/data", "faults": '{"load": "raise"}'})},
            "FileNotFoundError: /data: nothing there",
        ),
        ({"model_parameters": '{"size": 6000000}'}, "bytes, this learner allows 20000000 (--max-weights"),
    ],
)
def test_a_setup_that_is_refused_says_why_and_changes_nothing(peer, change: dict[str, str], description: str) -> None:
    peer.set(weights([1, 2]))
    before = peer.current()
    good = {
        "dataset_loader_name": "TINY_DATA",
        "dataset_loader_parameters": '{"location": "1"}',
        "model_arch_name": "TINY",
        "model_parameters": "{}",
    }
    answer = peer.stub.MLSetup(pb.RequestMLSetup(**{**good, **change}), timeout=60)
    assert answer.status == pb.ERROR
    assert description in answer.description
    assert peer.current() == before
    assert peer.status() == pb.WORKING


def test_a_setup_repeated_is_a_setup_anew(peer) -> None:
    first = peer.current()
    peer.set(weights([1, 2]))
    assert peer.setup().status == pb.SUCCESS
    assert peer.current() == first


@pytest.mark.parametrize("fault", ["raise", "exit", "stop_iteration"])
@pytest.mark.parametrize("where", ["propose", "test"])
def test_a_learner_that_fails_says_how_and_lives_on(peer, shared, where: str, fault: str) -> None:
    peer.setup(faults={where: fault})
    before = peer.current()
    with pytest.raises(grpc.RpcError) as failed:
        peer.propose() if where == "propose" else peer.test(weights([1, 1]))
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    said = {"raise": f"RuntimeError: boom in {where}", "exit": "SystemExit: 3", "stop_iteration": "StopIteration"}
    assert said[fault] in failed.value.details()
    assert "in misbehave" in shared.log()
    assert peer.current() == before
    assert peer.status() == pb.WORKING


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nan", "the tensor 'w' holds numbers that are not finite"),
        ("nothing", "mli_propose_weights returned NoneType, Weights is needed"),
    ],
)
def test_a_proposal_that_is_none_fails_where_it_is_made(peer, fault: str, said: str) -> None:
    peer.setup(faults={"propose": fault})
    with pytest.raises(grpc.RpcError, match=said) as failed:
        peer.propose()
    assert failed.value.code() is grpc.StatusCode.INTERNAL


def test_scores_that_are_no_numbers_arrive_as_such(peer) -> None:
    peer.setup(location="nan")
    verdict = peer.test(weights([1, 1]))
    assert math.isnan(verdict.vote_score)
    assert not verdict.vote


def test_the_health_of_a_service_that_is_not_there_is_refused(shared, peer) -> None:
    stub = health_pb2_grpc.HealthStub(shared.channel())
    with pytest.raises(grpc.RpcError, match="service: 'colearn', one of") as refused:
        stub.Check(health_pb2.HealthCheckRequest(service="colearn"), timeout=60)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    watched = next(stub.Watch(health_pb2.HealthCheckRequest(service="colearn"), timeout=60))
    assert watched.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def test_reflection_names_the_service(shared) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(shared.channel())
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=60)))
    names = {service.name for service in answer.list_services_response.service}
    assert {"contract_learn.grpc.GRPCLearner", "grpc.health.v1.Health"} <= names
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="contract_learn.grpc.GRPCLearner")
    answer = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=60)))
    assert b"WeightsPart" in answer.file_descriptor_response.file_descriptor_proto[0]


def test_a_message_that_is_none_is_refused(shared, peer) -> None:
    call = shared.channel().unary_unary("/contract_learn.grpc.GRPCLearner/MLSetup")
    with pytest.raises(grpc.RpcError) as failed:
        call(b"\xff\xff\xff", timeout=60)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert peer.status() == pb.WORKING
