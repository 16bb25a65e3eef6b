"""The tiny learner behind a server of another make: generated stubs, threads, the safetensors package, no additions.

It plays an original colearn peer: no digests, no AcceptWeights, parts of its own size, and everything that comes is
taken for what it says it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import tiny
from google.protobuf.empty_pb2 import Empty
from safetensors.numpy import load, save

from collective_learner.mli import TrainingOptions, Weights
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire import interface_pb2_grpc as rpc

PART = 700_000


class ForeignServicer(rpc.GRPCLearnerServicer):
    def __init__(self) -> None:
        self.learner: tiny.TinyLearner | None = None
        self.lock = threading.Lock()

    def set_up(self, context: grpc.ServicerContext) -> tiny.TinyLearner:
        if self.learner is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model")
        return self.learner

    def QueryVersion(self, request: Any, context: Any) -> Any:
        return pb.ResponseVersion(version="0.0.1")

    def QuerySupportedSystem(self, request: Any, context: Any) -> Any:
        return pb.ResponseSupportedSystem()

    def MLSetup(self, request: Any, context: Any) -> Any:
        with self.lock:
            parameters = json.loads(request.model_parameters)
            location = json.loads(request.dataset_loader_parameters)["location"]
            learner = tiny.tiny(tiny.Site(location), **parameters)
            if context.is_active():
                self.learner = learner
        return pb.ResponseMLSetup(status=pb.SUCCESS)

    def ProposeWeights(self, request: Any, context: Any) -> Any:
        with self.lock:
            learner = self.set_up(context)
            learner.mli_set_training_options(TrainingOptions(round=request.round))
            content = save(dict(learner.mli_propose_weights().weights))
        yield from parts(content)

    def GetCurrentWeights(self, request: Any, context: Any) -> Any:
        with self.lock:
            content = save(dict(self.set_up(context).weights))
        yield from parts(content)

    def TestWeights(self, request_iterator: Any, context: Any) -> Any:
        weights = received(request_iterator, context)
        with self.lock:
            judged = self.set_up(context).mli_test_weights(weights)
        return pb.ProposedWeights(vote_score=judged.vote_score, test_score=judged.test_score, vote=judged.vote)

    def SetWeights(self, request_iterator: Any, context: Any) -> Any:
        weights = received(request_iterator, context)
        with self.lock:
            if context.is_active():
                self.set_up(context).mli_accept_weights(weights)
        return Empty()

    def AcceptWeights(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in colearn")

    def StatusStream(self, request_iterator: Any, context: Any) -> Any:
        for _ in request_iterator:
            yield pb.ResponseStatus(status=pb.NO_MODEL if self.learner is None else pb.WORKING)


def parts(content: bytes) -> Any:
    for offset in range(0, len(content), PART):
        yield pb.WeightsPart(weights=content[offset : offset + PART], byte_index=offset, total_bytes=len(content))


def received(stream: Any, context: grpc.ServicerContext) -> Weights:
    content, total = bytearray(), 0
    for part in stream:
        content += part.weights
        total = part.total_bytes
    if not content or len(content) != total:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "half of the weights")
    return Weights(weights=load(bytes(content)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
    rpc.add_GRPCLearnerServicer_to_server(ForeignServicer(), server)
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    print(f"listening on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
