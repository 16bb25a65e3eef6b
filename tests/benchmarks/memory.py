"""Peak memory of a coordinator with models too large for this machine to hold once a learner.

The learners here are fakes on one port each: they stream the same piece over and over, and count what they receive.
``python -m tests.benchmarks.memory '{"learners": 32, "megabytes": 500}'`` serves them.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
from tests.benchmarks.harness import config_of, processes

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.methods import SERVICE
from collective_learner.wire.parts import PART_BYTES, encode_part, parse_part

_MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
"""A small process in between: the peak of a child begins with what its parent had when it was forked."""


class Fake:
    """Plays a learner of ones; ones average to ones, so every model in the run has the same bytes."""

    def __init__(self, megabytes: int) -> None:
        elements = megabytes * 250_000
        header = json.dumps({"w": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}).encode()
        self.header = len(header).to_bytes(8, "little") + header
        self.piece = np.ones(PART_BYTES // 4, np.float32).tobytes()
        self.total = len(self.header) + 4 * elements

    def payloads(self) -> Iterator[bytes]:
        """Give the bytes of the model in parts."""
        yield self.header
        left = self.total - len(self.header)
        while left:
            payload = self.piece if left >= len(self.piece) else self.piece[:left]
            left -= len(payload)
            yield payload

    async def give(self, _: bytes, context: object) -> AsyncIterator[bytes]:
        """Stream the model."""
        offset = 0
        summary = pb.TrainingSummary(examples=1).SerializeToString()
        for payload in self.payloads():
            yield encode_part(payload, offset=offset, total=self.total, summary=summary if offset == 0 else None)
            offset += len(payload)

    async def test(self, parts: AsyncIterator[bytes], context: object) -> bytes:
        """Take a model, and approve."""
        received = 0
        async for part in parts:
            received += parse_part(part).payload.nbytes
        assert received == self.total
        return pb.ProposedWeights(vote_score=0.5, test_score=0.5, vote=True, examples=1).SerializeToString()


async def serve(settings: dict[str, int]) -> None:
    """Serve until standard input ends."""
    fake = Fake(settings["megabytes"])

    async def version(_: bytes, context: object) -> bytes:
        return pb.ResponseVersion(version="1.0.0").SerializeToString()

    async def supported(_: bytes, context: object) -> bytes:
        return b""

    async def setup(_: bytes, context: object) -> bytes:
        return pb.ResponseMLSetup(status=pb.SUCCESS).SerializeToString()

    async def accept(_: bytes, context: object) -> bytes:
        return b""

    async def status(stream: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        async for _request in stream:
            yield pb.ResponseStatus(status=pb.WORKING).SerializeToString()

    handlers = {
        "QueryVersion": grpc.unary_unary_rpc_method_handler(version, None, None),
        "QuerySupportedSystem": grpc.unary_unary_rpc_method_handler(supported, None, None),
        "MLSetup": grpc.unary_unary_rpc_method_handler(setup, None, None),
        "AcceptWeights": grpc.unary_unary_rpc_method_handler(accept, None, None),
        "ProposeWeights": grpc.unary_stream_rpc_method_handler(fake.give, None, None),
        "GetCurrentWeights": grpc.unary_stream_rpc_method_handler(fake.give, None, None),
        "TestWeights": grpc.stream_unary_rpc_method_handler(fake.test, None, None),
        "SetWeights": grpc.stream_unary_rpc_method_handler(fake.test, None, None),
        "StatusStream": grpc.stream_stream_rpc_method_handler(status, None, None),
    }
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 8 << 20),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    print(json.dumps([server.add_insecure_port("127.0.0.1:0") for _ in range(settings["learners"])]), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


def peak_megabytes(*, strategy: str, learners: int, megabytes: int, rounds: int) -> float:
    """Run a coordinator process to its verdict, and give its peak resident memory in MB."""
    serving = ("tests.benchmarks.memory", json.dumps({"learners": learners, "megabytes": megabytes}))
    with processes(serving) as (ports,), tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "coordinator.json")
        config.write_text(json.dumps(config_of(ports, rounds=rounds, strategy={"type": strategy})))
        measured = subprocess.run(
            [
                *(sys.executable, "-c", _MEASURE, sys.executable, "-m", "collective_coordinator"),
                f"--config={config}",
                f"--state-dir={directory}/state",
                "--host=127.0.0.1",
                "--port=0",
                f"--termination-log={directory}/last-word",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        verdict = json.loads(Path(directory, "last-word").read_text())
        if measured.returncode or verdict["phase"] != "Complete":
            raise RuntimeError(f"the coordinator ended with {measured.returncode}: {verdict['message']}")
        return int(measured.stdout) / 1000


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
