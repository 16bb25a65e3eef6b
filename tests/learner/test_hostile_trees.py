"""Trees over the wire: a stranger's are refused with a status and the tensor's name, and the learner lives on."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
from blake3 import blake3

from collective_learner.mli import Weights
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.codec import decode, encode

pytest.importorskip("sklearn", reason="needs the extra sklearn")

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def forest(servers_of_module):
    return servers_of_module.start(program=("-m", "collective_learner", "--import=collective_learner.tasks"))


@pytest.fixture
def peer(forest, connect):
    peer = connect(forest)
    answer = peer.stub.MLSetup(
        pb.RequestMLSetup(
            dataset_loader_name="BREAST_CANCER",
            dataset_loader_parameters=json.dumps({"location": "0/5"}),
            model_arch_name="SKLEARN_BREAST_CANCER_BOOSTING",
            model_parameters=json.dumps({"max_trees": 12}),
        ),
        timeout=60,
    )
    assert answer.status == pb.SUCCESS, answer.description
    return peer


def changed(arrays: dict[str, np.ndarray], name: str, at: int, value: int) -> bytes:
    array = arrays[name].copy()
    array[at] = value
    return encode(Weights({**arrays, name: array})).to_bytes()


def test_a_learner_survives_every_kind_of_hostile_tree(peer) -> None:
    data, _ = peer.propose()
    arrays = decode(data).weights
    nodes = len(arrays["trees.left"])
    attacks = {
        "child does not come after": changed(arrays, "trees.left", 1, 1),
        "'trees.right', node 0: the child does not": changed(arrays, "trees.right", 0, 2**32 - 1),
        "'trees.feature', node 0: the inputs have 30 columns": changed(arrays, "trees.feature", 0, 2**32 - 1),
        "'trees.nodes', tree 0: a tree has 1 to 15 nodes": changed(arrays, "trees.nodes", 0, nodes),
        "'trees.nodes' has the shape (13,), the model's has (at most 12)": encode(
            Weights({**arrays, "trees.nodes": np.ones(13, np.uint32)})
        ).to_bytes(),
    }
    endless = changed(arrays, "trees.threshold", 0, 0).replace(b"collective.growing", b"collective.GROWING")
    assert peer.test(endless).vote_score > 0  # what others say that grows is nothing to a learner
    before = peer.current()
    for message, attack in attacks.items():
        for call in (peer.test, peer.set):
            with pytest.raises(grpc.RpcError) as caught:
                call(attack)
            assert caught.value.code() is INVALID, caught.value.details()
            assert message in caught.value.details()
    assert peer.current() == before
    assert peer.test(data).vote
    peer.set(data)
    assert len(decode(peer.current()).weights["trees.nodes"]) == 5


def test_more_bytes_than_the_whole_forest_may_have_are_not_even_received(peer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        peer.test([pb.WeightsPart(weights=bytes(99), byte_index=0, total_bytes=10_000_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "announce 10000000 bytes, the limit here is" in caught.value.details()


def test_a_forest_goes_out_as_onnx_that_says_of_which_weights_it_is(peer) -> None:
    onnx = pytest.importorskip("onnx")
    data, _ = peer.propose()
    peer.set(data)
    digest = blake3(data).digest()
    parts = peer.stub.ExportModel(pb.RequestExportModel(format="onnx", digest=digest), timeout=60)
    model = onnx.load_from_string(peer.joined(parts)[0])
    about = {each.key: each.value for each in model.metadata_props}
    assert about["collective.weights"] == f"blake3:{digest.hex()}"
    assert about["collective.framework"] == "scikit-learn"
    assert peer.current() == data
