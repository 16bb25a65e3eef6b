"""A foreign learner: generated stubs and messages, parts of 4,000,000 bytes, none of our additions.

It lies as the file in its argument says: each kind of lie is a way in which a learner's answer can be wrong.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import safetensors.numpy
from google.protobuf.empty_pb2 import Empty

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.interface_pb2_grpc import GRPCLearnerServicer, add_GRPCLearnerServicer_to_server

PART = 4_000_000


class PlainLearner(GRPCLearnerServicer):
    def __init__(self, lie_file: Path) -> None:
        self.lie_file = lie_file
        self.weights = safetensors.numpy.save({"w": np.arange(1_500_000, dtype=np.float32)})

    @property
    def lie(self) -> str:
        return self.lie_file.read_text()

    def QueryVersion(self, request, context):
        if self.lie == "no version":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        return pb.ResponseVersion(version="0.2.8")

    def QuerySupportedSystem(self, request, context):
        return pb.ResponseSupportedSystem(
            data_loaders=[pb.DatasetLoaderSpec(name="D", default_parameters="{" if self.lie == "json" else '{"a": 1}')],
            model_architectures=[pb.ModelArchSpec(name="M")],
            compatibilities=[pb.CompatibilitySpec(model_architecture="M", dataloaders=["D"])],
        )

    def MLSetup(self, request, context):
        if request.model_arch_name != "M":
            return pb.ResponseMLSetup(status=pb.ERROR, description="only M is known")
        assert request.dataset_loader_parameters == '{"location": "x"}'
        return pb.ResponseMLSetup(status=pb.UNDEFINED if self.lie == "setup" else pb.SUCCESS, description="fine")

    def GetCurrentModel(self, request, context):
        return pb.ResponseCurrentModel(model_format=77 if self.lie == "format" else 2, model_file="m", model=b"12")

    def parts(self):
        data = self.weights
        total = len(data)
        for at in range(0, total, PART):
            part = pb.WeightsPart(weights=data[at : at + PART], byte_index=at, total_bytes=total)
            if at == 0:
                part.training_summary.dp_budget.consumed_epsilon = 2
            if self.lie == "total":
                part.total_bytes = 2**60
            elif self.lie == "overlap" and at:
                part.byte_index = at - 1
            elif self.lie == "hole" and at:
                part.byte_index = at + 1
            elif self.lie == "content":
                part.weights = b"\x80\x04" + part.weights[2:]
            elif self.lie == "digest":
                part.digest = bytes(32)
            elif self.lie == "error code":
                part.training_summary.error_code = 99
            yield part
            if self.lie == "truncated":
                return

    def ProposeWeights(self, request, context):
        return self.parts()

    def GetCurrentWeights(self, request, context):
        return self.parts()

    def joined(self, parts) -> bytes:
        data, total = b"", 0
        for part in parts:
            assert part.byte_index == len(data)
            data, total = data + part.weights, part.total_bytes
        assert total == len(data)
        return data

    def TestWeights(self, request_iterator, context):
        data = self.joined(request_iterator)
        own = safetensors.numpy.load(self.weights)["w"]
        return pb.ProposedWeights(
            vote_score=float(safetensors.numpy.load(data)["w"][0]),
            test_score=0.5,
            vote=bool(len(own) == 1_500_000),
        )

    def SetWeights(self, request_iterator, context):
        self.weights = self.joined(request_iterator)
        return Empty()

    def StatusStream(self, request_iterator, context):
        if self.lie == "silent":
            return
        for _ in request_iterator:
            yield pb.ResponseStatus(status=pb.WORKING)


server = grpc.server(ThreadPoolExecutor(8))
add_GRPCLearnerServicer_to_server(PlainLearner(Path(sys.argv[1])), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"listening on 127.0.0.1:{port}", flush=True)
server.wait_for_termination()
