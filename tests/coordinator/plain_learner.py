"""A learner in its own process that learns nothing: it plays an original colearn peer, or ours, and fails on command.

Run as ``python plain_learner.py --port 0 --script JSON``; it prints its port. Its weights are a header, which names
their generation and who made it, and a filling. The script (all keys optional)::

    {"size": 1000, "extensions": false, "train_s": 0, "test_s": 0, "votes": "better" | "never",
     "hurry": "path",                # once that file is there, training takes no time any more
     "budget": 4,                    # epsilon: each training spends 1, and there is none that would go past it
     "forgets": 3,                   # what was spent, at every third training
     "journal": "path",              # one JSON line for every call that changes or measures something
     "rules": [{"method": "TestWeights", "call": 3, "do": "exit", "once": "path"}]}

A rule holds for the call of that number of its method (0: every call); with ``once`` only in the process that creates
that file. What to do: ``exit``, ``hang``, ``nan``, ``lie`` (about the offset), ``truncate``, ``digest`` (a wrong one),
``die-midway``, ``revert`` (to the weights before its own), ``sleep:SECONDS``, ``until:PATH`` (is there), or the name of
a status code.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from blake3 import blake3
from google.protobuf.empty_pb2 import Empty

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire import interface_pb2_grpc as rpc

PART = 1 << 20
HEADER = 64


def weights_header(generation: int, author: str) -> bytes:
    return f"plain {generation} {author}".encode().ljust(HEADER)


class PlainLearner(rpc.GRPCLearnerServicer):
    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        self.size = max(HEADER, script.get("size", 1000))
        self.extensions = script.get("extensions", False)
        self.name: str | None = None
        self.header = self.earlier = b""
        self.tested: tuple[bytes, bytes] | None = None
        self.calls: dict[str, int] = {}
        self.lock = threading.Lock()

    # -- the script

    def act(self, method: str, context: grpc.ServicerContext) -> str:
        with self.lock:
            self.calls[method] = self.calls.get(method, 0) + 1
            call = self.calls[method]
        for rule in self.script.get("rules", []):
            if rule["method"] == method and rule.get("call", 0) in (0, call) and self.first(rule.get("once")):
                return self.do(rule["do"], context)
        return ""

    def first(self, path: str | None) -> bool:
        if path is None:
            return True
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def do(self, what: str, context: grpc.ServicerContext) -> str:
        if what == "exit":
            os._exit(9)
        if what == "hang":
            while context.is_active():
                time.sleep(0.05)
            self.note("released")
            context.abort(grpc.StatusCode.CANCELLED, "hung")
        if what.startswith("sleep:"):
            self.wait(float(what.split(":")[1]), context)
            return ""
        if what.startswith("until:"):
            while context.is_active() and not os.path.exists(what.removeprefix("until:")):
                time.sleep(0.02)
            return ""
        if what.isupper():
            context.abort(grpc.StatusCode[what], "as the script says")
        return what

    def wait(self, seconds: float, context: grpc.ServicerContext) -> None:
        end = time.monotonic() + seconds
        while context.is_active() and time.monotonic() < end:
            time.sleep(min(0.02, seconds))

    def note(self, event: str, **more: Any) -> None:
        path = self.script.get("journal")
        if path:
            line = json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n"
            with open(path, "a") as file:
                file.write(line)

    def needs_model(self, context: grpc.ServicerContext) -> None:
        if self.name is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no model: call MLSetup first")

    # -- weights

    def generation(self, header: bytes) -> int:
        return int(header.split()[1])

    def digest(self, header: bytes) -> bytes:
        digest = blake3(header)
        zeros = bytes(PART)
        left = self.size - HEADER
        while left:
            step = min(left, PART)
            digest.update(zeros[:step])
            left -= step
        return digest.digest()

    def stream(self, header: bytes, action: str = "") -> Any:
        total = self.size + (10 if action == "truncate" else 0)
        for offset in range(0, self.size, PART):
            payload = bytes(min(PART, self.size - offset))
            if offset == 0:
                payload = header + payload[HEADER:]
            part = pb.WeightsPart(weights=payload, byte_index=offset, total_bytes=total)
            if action == "lie":
                part.byte_index = offset + 1
            if action == "die-midway" and offset:
                os._exit(9)
            if offset == 0 and self.script.get("epsilon"):
                part.training_summary.dp_budget.target_epsilon = 8
                part.training_summary.dp_budget.consumed_epsilon = self.script["epsilon"]
            if offset == 0 and "budget" in self.script and header != self.header:
                budget, train = part.training_summary.dp_budget, self.calls["ProposeWeights"]
                budget.target_epsilon = self.script["budget"]
                budget.consumed_epsilon = float(train % self.script.get("forgets", 1 << 20))
                if budget.consumed_epsilon > self.script["budget"]:
                    budget.consumed_epsilon = self.script["budget"]
                    part.training_summary.error_code = 1
            if self.extensions and offset == 0:
                part.training_summary.trained_from = self.digest(self.header)
            if self.extensions and offset + PART >= self.size:
                part.digest = b"\x01" * 32 if action == "digest" else self.digest(header)
            yield part

    def take(self, parts: Any) -> tuple[bytes, bytes]:
        header, digest, received = b"", blake3(), 0
        for part in parts:
            assert part.byte_index == received and len(part.weights) > 0
            if not received:
                header = part.weights[:HEADER]
            digest.update(part.weights)
            received += len(part.weights)
            total = part.total_bytes
        assert received == total == self.size
        return header, digest.digest()

    # -- the interface

    def QueryVersion(self, request: Any, context: Any) -> Any:
        return pb.ResponseVersion(version="0.0.1")

    def QuerySupportedSystem(self, request: Any, context: Any) -> Any:
        self.act("QuerySupportedSystem", context)
        return pb.ResponseSupportedSystem(
            data_loaders=[pb.DatasetLoaderSpec(name="PLAIN", default_parameters='{"seed": 0}')],
            model_architectures=[pb.ModelArchSpec(name="PLAIN", default_parameters="{}")],
            compatibilities=[pb.CompatibilitySpec(model_architecture="PLAIN", dataloaders=["PLAIN"])],
        )

    def MLSetup(self, request: Any, context: Any) -> Any:
        self.act("MLSetup", context)
        if request.model_arch_name != "PLAIN":
            return pb.ResponseMLSetup(status=pb.ERROR, description=f"no model {request.model_arch_name}, only PLAIN")
        parameters = json.loads(request.dataset_loader_parameters)
        self.name = str(parameters.get("location", "x"))
        self.header = weights_header(0, self.name)
        self.tested = None
        self.note("setup", parameters=parameters, seed=request.seed)
        return pb.ResponseMLSetup(status=pb.SUCCESS)

    def ProposeWeights(self, request: Any, context: Any) -> Any:
        self.needs_model(context)
        self.note("train")
        action = self.act("ProposeWeights", context)
        hurries = os.path.exists(self.script.get("hurry", ""))
        self.wait(0 if hurries else self.script.get("train_s", 0), context)
        if action == "revert":
            self.header = self.earlier
        yield from self.stream(weights_header(self.generation(self.header) + 1, self.name or ""), action)

    def GetCurrentWeights(self, request: Any, context: Any) -> Any:
        self.needs_model(context)
        action = self.act("GetCurrentWeights", context)
        yield from self.stream(self.header, action)

    def TestWeights(self, request_iterator: Any, context: Any) -> Any:
        self.needs_model(context)
        action = self.act("TestWeights", context)
        header, digest = self.take(request_iterator)
        self.wait(self.script.get("test_s", 0), context)
        self.tested = (header, digest)
        if action == "revert":
            self.header = self.earlier
        generation = self.generation(header)
        answer = pb.ProposedWeights(
            vote_score=float("nan") if action == "nan" else generation / 100,
            test_score=generation / 200,
            vote=self.script.get("votes") != "never" and generation > self.generation(self.header),
        )
        if self.extensions:
            answer.held = self.digest(self.header)
        return answer

    def SetWeights(self, request_iterator: Any, context: Any) -> Any:
        self.needs_model(context)
        self.act("SetWeights", context)
        header, digest = self.take(request_iterator)
        self.note("set", digest=digest.hex(), generation=self.generation(header), before=self.generation(self.header))
        self.earlier, self.header = self.header, header
        return Empty()

    def AcceptWeights(self, request: Any, context: Any) -> Any:
        if not self.extensions:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in colearn")
        self.needs_model(context)
        self.act("AcceptWeights", context)
        if self.tested is None or self.tested[1] != request.digest:
            if self.digest(self.header) == request.digest:
                return Empty()
            context.abort(grpc.StatusCode.NOT_FOUND, "these have not been tested here")
        header, digest = self.tested
        before = self.generation(self.header)
        self.note("accept", digest=digest.hex(), generation=self.generation(header), before=before)
        self.earlier, self.header = self.header, header
        return Empty()

    def StatusStream(self, request_iterator: Any, context: Any) -> Any:
        for _ in request_iterator:
            yield pb.ResponseStatus(status=pb.NO_MODEL if self.name is None else pb.WORKING)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="{}")
    arguments = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    rpc.add_GRPCLearnerServicer_to_server(PlainLearner(json.loads(arguments.script)), server)
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
