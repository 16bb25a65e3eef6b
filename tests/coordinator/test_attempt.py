"""What one attempt does with learners that go while it runs, and with what gRPC says of them."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from collective_coordinator.attempt import Attempt
from collective_coordinator.errors import LearnerError
from collective_coordinator.metrics import Metrics
from collective_coordinator.peer import Peer
from collective_coordinator.privacy import Budgets
from collective_coordinator.pulse import Timing
from collective_coordinator.spool import Spool
from collective_coordinator.strategies.base import Decision, Training
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.parts import encode_parts


class Two:
    """A strategy that loses its first trainer, and takes what the second sends."""

    training = Training()
    alone = False
    keeps_state = False

    def trainers(self, *, round_number, live):
        return tuple(live)

    async def merge(self, inbound):
        first, second = inbound.streams
        inbound.leave_out(first, LearnerError("gone", code=grpc.StatusCode.UNAVAILABLE))
        async for message in inbound.streams[second]:
            yield message

    def decide(self, *, trainers, ballots, held):
        return Decision(accepted=True, votes={})


class Learner:
    """A member whose keeper has not brought it back yet, once it is lost; its own peer, too."""

    def __init__(self, name: str) -> None:
        self.name, self.peer, self.ready, self.tests = name, self, True, 0

    def show(self, state) -> None:
        pass

    def lose(self, reason) -> None:
        self.ready = False

    async def test(self, parts):
        self.tests += 1
        async for _ in parts:
            pass
        return pb.ProposedWeights(vote=True, vote_score=1, test_score=1)


async def test_who_was_lost_while_the_others_trained_has_no_vote(tmp_path):
    """It may be on its way back: set up anew, without the weights that the others compare with."""
    members = [Learner("learner-0"), Learner("learner-1")]

    async def trained(member):
        for part in encode_parts(b"weights"):
            yield part

    spool = Spool(tmp_path / "spool")
    with ThreadPoolExecutor(1) as pool:
        attempt = Attempt(
            name=b"one",
            strategy=Two(),
            source=trained,
            spool=spool,
            state_spool=None,
            limit=1000,
            current=None,
            state=None,
            budgets=Budgets({}, metrics=Metrics()),
            patience_s=10,
            enough=1,
            writer=pool,
            readers=pool,
            arithmetic=pool,
        )
        proposal = await attempt.run(round_number=1, members=members)
    spool.discard()
    assert proposal is not None
    assert list(proposal.ballots) == ["learner-1"]
    assert [member.tests for member in members] == [0, 1]
    assert attempt.faults == {"learner-0": "gone"}


async def test_a_connection_that_breaks_at_the_end_of_writing_is_the_learners_fault(plain, monkeypatch):
    """gRPC raises an error of its own there, which nobody else does, and which ended the coordinator."""
    (learner,) = plain({"extensions": True})
    peer = Peer(address=f"127.0.0.1:{learner.port}", timing=Timing(), metrics=Metrics())

    async def break_off(call):
        learner.process.send_signal(signal.SIGKILL)
        learner.process.wait(60)
        raise grpc.aio.InternalError('Failed "execute_batch"')

    async def parts():
        for part in encode_parts(b"plain 1 x".ljust(1000)):
            yield part

    try:
        await peer.setup(pb.RequestMLSetup(dataset_loader_parameters="{}", model_arch_name="PLAIN"))
        monkeypatch.setattr("grpc.aio._call.StreamUnaryCall.done_writing", break_off)
        with pytest.raises(LearnerError, match="TestWeights") as error:
            await peer.test(parts())
        assert error.value.code is grpc.StatusCode.UNAVAILABLE
    finally:
        await peer.close()
