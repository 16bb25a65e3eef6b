"""Learners that fail, stall, answer nonsense, and come back."""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc
import pytest

from collective_coordinator.dialing import CHANNEL_OPTIONS
from collective_coordinator.errors import LearnerError
from collective_coordinator.metrics import Metrics
from collective_coordinator.peer import Peer
from collective_coordinator.pulse import Timing, Watch
from collective_learner.wire import interface_pb2 as pb

OURS = {"extensions": True}


def rule(method: str, call: int, do: str, once: object = None) -> dict[str, object]:
    return {"method": method, "call": call, "do": do, **({"once": str(once)} if once else {})}


@pytest.mark.parametrize(
    ("method", "do", "told"),
    [
        ("TestWeights", "nan", "vote score that is not a finite number"),
        ("TestWeights", "INTERNAL", "TestWeights: "),
        ("ProposeWeights", "lie", "a part starts at byte 1"),
        ("ProposeWeights", "truncate", "ended at byte 3000000 of 3000010"),
        ("ProposeWeights", "digest", "do not have the digest"),
        ("ProposeWeights", "INTERNAL", "as the script says"),
    ],
)
def test_nonsense_is_left_out_of_the_round_and_spoils_nothing(plain, coordinated, history_is_sound, method, do, told):
    bad = {**OURS, "size": 3_000_000, "rules": [rule(method, 2, do)]}
    good = {**OURS, "size": 3_000_000}
    learners = plain(good, bad, good)
    task = coordinated(learners, rounds=5, policy={"minLearners": 2})

    verdict = task.run()

    assert verdict["round"] == {"current": 5, "total": 5, "accepted": 5}
    history_is_sound(task, learners, rounds=5)
    spoilt = next(record for record in task.records() if "leftOut" in record)
    assert list(spoilt["leftOut"]) == ["learner-1"]
    assert told in spoilt["leftOut"]["learner-1"]
    assert "learner-1" not in spoilt["votes"]
    assert all(list(record.get("leftOut", {"learner-1": ""})) == ["learner-1"] for record in task.records())


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("ProposeWeights", "trained from other weights"),
        ("TestWeights", "compared with other weights"),
    ],
)
def test_a_learner_that_holds_other_weights_is_not_believed_and_is_given_them_again(
    plain, coordinated, history_is_sound, method, told
):
    """As after a SetWeights that a broken network has kept back: it arrives late, and undoes a newer one."""
    call = 2 if method == "ProposeWeights" else 7
    learners = plain(OURS, {**OURS, "rules": [rule(method, call, "revert")]}, OURS)
    task = coordinated(learners, rounds=9, policy={"minLearners": 2})
    task.run()
    history_is_sound(task, learners, rounds=9)
    spoilt = next(record for record in task.records() if "leftOut" in record)
    assert told in spoilt["leftOut"]["learner-1"]
    assert "learner-1" not in spoilt["trainers"]
    assert "learner-1" not in spoilt["testScores"]
    # By SetWeights, or by the digest of what it has tested, as the moment has it; the history above knows the bytes.
    lost = task.log.index("learner-1 is lost: ")
    assert told in task.log[lost:].splitlines()[0]
    assert "learner-1 is ready" in task.log[lost:], "it was not given the weights again"


def test_below_the_quorum_nonsense_is_tried_again(plain, coordinated, history_is_sound):
    """All learners are needed: the round waits for the one that has spoilt it, and has one line all the same."""
    learners = plain(OURS, {**OURS, "rules": [rule("TestWeights", 3, "nan")]})
    task = coordinated(learners, rounds=4)
    assert task.run()["round"]["accepted"] == 4
    history_is_sound(task, learners, rounds=4)
    assert not any("leftOut" in record for record in task.records())


def test_for_ever_below_the_quorum_fails_and_names_who_and_why(plain, coordinated):
    learners = plain(OURS, {**OURS, "rules": [rule("TestWeights", 0, "nan")]})
    task = coordinated(learners, rounds=2, policy={"preRunningDeadlineSeconds": 6})  # the first must come within it
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "BelowQuorum")
    assert "1 of the 2 learners needed" in verdict["message"]
    assert "learner-1 (answered a vote score" in verdict["message"]


def test_a_learner_that_never_comes_fails_and_is_named(plain, coordinated):
    learners = plain(OURS, OURS)
    learners[1].kill()
    task = coordinated(learners, rounds=2, policy={"preRunningDeadlineSeconds": 6})
    verdict = task.run()
    assert verdict["reason"] == "BelowQuorum"
    assert "learner-1 (QueryVersion: UNAVAILABLE" in verdict["message"]
    assert [one["state"] for one in verdict["learners"]] == ["Ready", "Connecting"]
    assert verdict["round"]["current"] == 0


@pytest.mark.parametrize(
    ("method", "quorum"),
    [
        ("ProposeWeights", 3),
        ("TestWeights", 3),
        ("AcceptWeights", 3),
        ("TestWeights", 2),
    ],
)
def test_a_learner_that_dies_in_a_call_comes_back(
    plain, coordinated, wait_until, history_is_sound, tmp_path, method, quorum
):
    learners = plain(OURS, {**OURS, "rules": [rule(method, 2, "exit", once=tmp_path / "once")]}, OURS)
    task = coordinated(learners, rounds=30, policy={"minLearners": quorum})
    process = task.start()
    wait_until(lambda: not learners[1].running(), "death of learner-1")
    if quorum == 3:
        wait_until(lambda: task.status()["reason"] == "WaitingForLearners", "waiting for it")
        assert "learner-1 (" in task.status()["message"]
    learners[1].kill()
    learners[1].start()
    assert process.wait(60) == 0, task.log
    assert task.verdict()["phase"] == "Complete"
    wait_until(lambda: learners[1].events("setup")[-1]["pid"] == learners[1].process.pid or quorum == 2, "new set-up")
    if quorum == 3:
        history_is_sound(task, learners, rounds=30)
    else:
        history_is_sound(task, [learners[0], learners[2]], rounds=30)


def test_a_proposer_that_dies_amid_its_proposal(plain, coordinated, wait_until, history_is_sound, tmp_path):
    """The testers have parts of it already: they are called off, and the next live learner proposes."""
    big = {**OURS, "size": 20_000_000}
    learners = plain(big, {**big, "rules": [rule("ProposeWeights", 1, "die-midway", once=tmp_path / "once")]}, big)
    task = coordinated(learners, rounds=3, policy={"minLearners": 2})
    task.run()
    records = task.records()
    assert [record["proposer"] for record in records][:2] == ["learner-0", "learner-2"]
    assert list(records[1]["leftOut"]) == ["learner-1"]
    history_is_sound(task, [learners[0], learners[2]], rounds=3)
    assert not list((task.state / "checkpoint").glob("spool-*"))


def test_a_learner_that_hangs_is_left_out_at_the_deadline(plain, coordinated, history_is_sound):
    """It still answers status calls, so nothing but the deadline tells."""
    # Whenever it is asked, but for the first time: where a slow machine keeps another one, the round is tried again.
    hangs = [rule("TestWeights", call, "hang") for call in range(2, 50)]
    learners = plain(OURS, OURS, {**OURS, "rules": hangs})
    task = coordinated(learners, rounds=1, policy={"minLearners": 2, "roundTimeoutSeconds": 6})
    task.run()
    history_is_sound(task, learners[:2], rounds=1)
    assert "did not answer within its deadline" in task.records()[0]["leftOut"]["learner-2"]


def test_who_is_left_out_is_named_while_it_runs(plain, coordinated, wait_until):
    learners = plain(OURS, OURS, {**OURS, "rules": [rule("TestWeights", 0, "nan")]})
    task = coordinated(learners, rounds=100_000, policy={"minLearners": 2})
    task.start()

    def when_left_out():
        status = task.status()
        return status if (status["participation"] or {}).get("leftOut") else None

    status = wait_until(when_left_out, "round that it tests in, and does not train")
    told = status["participation"]
    assert told["strategy"] == "Vote"
    assert told["testers"] == ["learner-0", "learner-1"]
    assert set(told["trainers"]) < {"learner-0", "learner-1"}
    assert list(told["leftOut"]) == ["learner-2"]
    assert "left out of round" in status["learners"][2]["message"]
    assert status["learners"][0]["message"] == ""
    series = task.get("/metrics")
    assert 'collective_left_out_total{learner="learner-2"}' in series
    assert 'collective_left_out_total{learner="learner-0"}' not in series


def test_a_learner_restarted_between_rounds_is_set_up_again(plain, coordinated, wait_until, history_is_sound, tmp_path):
    hurry = tmp_path / "hurry"
    learners = plain(*[{**OURS, "train_s": 0.2, "hurry": str(hurry)}] * 2)
    task = coordinated(learners, rounds=60)
    process = task.start()
    wait_until(lambda: task.status()["round"]["current"] >= 2, "second round")
    learners[0].kill()
    learners[0].start()
    hurry.touch()
    assert process.wait(60) == 0, task.log
    history_is_sound(task, learners, rounds=60)
    assert len(learners[0].events("setup")) == 2


async def test_a_stopped_learner_is_noticed_long_before_its_deadline(plain):
    """SIGSTOP: the kernel keeps the connection, and no call ends. What tells is that nobody answers a handshake."""
    (learner,) = plain({**OURS, "train_s": 3600})
    timing = Timing(round_s=3600, heartbeat_s=0.2, answer_s=0.3, handshake_s=3.0)
    peer = Peer(address=f"127.0.0.1:{learner.port}", timing=timing, metrics=Metrics())
    try:
        await peer.setup(pb.RequestMLSetup(dataset_loader_parameters="{}", model_arch_name="PLAIN"))
        training = asyncio.create_task(anext(peer.propose(pb.RequestProposeWeights(), timeout_s=3600)))
        done, _ = await asyncio.wait({training}, timeout=2)
        assert not done, "long training is not death"
        learner.process.send_signal(signal.SIGSTOP)
        with pytest.raises(LearnerError, match="no sign of life"):
            await asyncio.wait_for(training, 60)
    finally:
        learner.process.send_signal(signal.SIGCONT)
        await peer.close()


async def test_a_learner_that_imports_its_modules_is_waited_for_as_one_that_loads_its_data(plain):
    (learner,) = plain({**OURS, "rules": [rule("QuerySupportedSystem", 0, "sleep:1")]})
    timing = Timing(query_s=0.3, setup_s=60, heartbeat_s=0.1)
    peer = Peer(address=f"127.0.0.1:{learner.port}", timing=timing, metrics=Metrics())
    try:
        assert [model.name for model in (await peer.supported()).model_architectures] == ["PLAIN"]
    finally:
        await peer.close()


BUSY = """
import grpc, re
from concurrent.futures import ThreadPoolExecutor
server = grpc.server(ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
re.match("(a*)*b", "a" * 64)  # takes years, and holds the interpreter's lock all along
"""


async def test_a_busy_interpreter_is_not_death():
    """Training that holds the interpreter's lock answers no status; gRPC's core still answers the handshake."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", BUSY, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        address = f"127.0.0.1:{int(await process.stdout.readline())}"
        timing = Timing(heartbeat_s=0.1, answer_s=0.2, handshake_s=10.0)
        async with (
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel,
            Watch(channel, address=address, timing=timing) as watch,
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watch.race(asyncio.Event().wait()), 2)
    finally:
        process.kill()
        await process.wait()
