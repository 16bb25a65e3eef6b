"""How many copies of its weights a learner's process holds, from proposing to accepting, measured from outside.

The learner's own proposal is tested where it is, as a coordinator does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from blake3 import blake3
from google.protobuf.empty_pb2 import Empty

from collective_learner.wire import interface_pb2 as pb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc"),
]

COPY = 200e6
"""What is beside a copy (network buffers, freed memory that malloc keeps) is a fraction of one."""


class Memory:
    """The memory of a process."""

    def __init__(self, pid: int) -> None:
        self.folder = Path(f"/proc/{pid}")

    def read(self, field: str) -> float:
        lines = (self.folder / "status").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    def peak_of(self, action) -> tuple[float, object]:
        """Give the peak while something is done, in bytes, and its result."""
        try:
            (self.folder / "clear_refs").write_text("5")
        except OSError as error:
            pytest.skip(f"the peak cannot be reset here: {error}")
        result = action()
        return self.read("VmHWM"), result


@pytest.mark.parametrize(
    ("model", "parameters", "training"),
    [
        ("HEAVY_TORCH", '{"optimizer": "SGD"}', 1.0),  # gradients
        ("HEAVY_SKLEARN", "{}", 0.0),
    ],
)
def test_a_learner_holds_at_most_two_copies_of_its_weights(
    servers, connect, record_property, model: str, parameters: str, training: float
) -> None:
    pytest.importorskip("torch" if "TORCH" in model else "sklearn")
    server = servers.start(program=("-m", "collective_learner", "--import=heavy"))
    peer, memory = connect(server), Memory(server.process.pid)
    answer = peer.stub.MLSetup(
        pb.RequestMLSetup(
            dataset_loader_name="HEAVY_DATA",
            dataset_loader_parameters='{"location": "1"}',
            model_arch_name=model,
            model_parameters=parameters,
        ),
        timeout=120,
    )
    assert answer.status == pb.SUCCESS, answer.description
    base = memory.read("VmRSS") - COPY
    other = connect(server)
    copies: dict[str, float] = {}

    def measure(what: str, action):
        peak, result = memory.peak_of(action)
        copies[what] = (peak - base) / COPY
        return result

    def play_round(number: int) -> None:
        proposal = peer.stub.ProposeWeights(pb.RequestProposeWeights(round=number, proposal=b"mine"), timeout=60)
        first = measure("propose", lambda: next(iter(proposal)))
        digest = blake3(first.weights)
        for part in proposal:
            digest.update(part.weights)
        name = digest.digest()
        measure("test at home", lambda: other.test_proposal(b"mine"))
        measure("accept", lambda: other.accept(name))
        foreign = list(other.stub.GetCurrentWeights(Empty(), timeout=60))
        measure("test another's", lambda: peer.test(foreign, timeout=60))
        measure("accept another's", lambda: peer.accept(name))

    play_round(1)
    play_round(2)  # with whatever the first has left
    record_property("copies", copies)
    print(model, parameters, {what: round(count, 2) for what, count in copies.items()})
    assert copies["propose"] < 2.6 + training
    for what in ("test at home", "accept", "test another's", "accept another's"):
        assert copies[what] < 2.6, copies
