"""Voted rounds with real learner processes: what is decided, recorded and told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

OURS = {"extensions": True}


def test_three_learners_reach_a_verdict(plain, coordinated, history_is_sound):
    learners = plain(OURS, OURS, OURS)
    task = coordinated(learners, rounds=6)

    verdict = task.run()

    assert (verdict["phase"], verdict["uid"], verdict["version"]) == ("Complete", "uid-1", 1)
    assert verdict["round"] == {"current": 6, "total": 6, "accepted": 6}
    assert verdict["latest"] == {
        "round": 6,
        "testScore": 0.03,
        "voteScore": 0.06,
        "proposer": "learner-2",
        "accepted": True,
    }
    assert verdict["score"] == 0.03
    assert verdict["result"]["model"] == "model.bin"
    assert [(one["name"], one["state"], one["lastScore"]) for one in verdict["learners"]] == [
        (f"learner-{index}", "Ready", 0.03) for index in range(3)
    ]
    history_is_sound(task, learners, rounds=6)
    records = task.records()
    assert [record["proposer"] for record in records] == ["learner-0", "learner-1", "learner-2"] * 2
    assert records[1]["votes"] == {"learner-0": True, "learner-2": True}
    assert list(records[1]["testScores"]) == ["learner-0", "learner-1", "learner-2"]
    assert set(records[1]["seconds"]) == {"propose", "test", "accept"}
    # Equal weights came first, the seed went where it is declared, and accepting cost no second transfer.
    for index, learner in enumerate(learners):
        (setup,) = learner.events("setup")
        assert setup["parameters"] == {"location": str(index), "seed": 7}
        assert setup["seed"] == 7
        assert [event["generation"] for event in learner.events("accept")] == [0, 1, 2, 3, 4, 5, 6]
        assert learner.events("set") == []


def test_original_colearn_peers_take_part(plain, coordinated, history_is_sound):
    """No digests, AcceptWeights unknown: weights are sent again, and everything else is the same."""
    learners = plain({}, OURS, {})
    task = coordinated(learners, rounds=3)
    assert task.run()["round"]["accepted"] == 3
    history_is_sound(task, learners, rounds=3)
    assert [event["generation"] for event in learners[0].events("set")] == [0, 1, 2, 3]
    assert learners[1].events("set") == []


def test_learners_of_its_own_domain_are_dialled_without_it(plain, coordinated, history_is_sound):
    learners = plain(OURS, OURS)
    task = coordinated(learners, rounds=2)
    for learner, told in zip(learners, task.config["learners"], strict=True):
        told["address"] = f"localhost.lab.svc:{learner.port}"
    task.options = ("--domain=lab.svc",)
    assert task.run()["phase"] == "Complete", task.log
    history_is_sound(task, learners, rounds=2)


def test_a_rejected_proposal_leaves_everyone_where_they_were(plain, coordinated, history_is_sound):
    learners = plain(OURS, {**OURS, "votes": "never"}, {**OURS, "votes": "never"})
    task = coordinated(learners, rounds=3)

    verdict = task.run()

    # Round 1: both others say no. Rounds 2 and 3: one of two approves, which is half of them.
    assert [record["accepted"] for record in task.records()] == [False, True, True]
    assert verdict["round"]["accepted"] == 2
    history_is_sound(task, learners, rounds=3)


def test_nothing_accepted_at_all_still_ends_with_the_first_weights(plain, coordinated, history_is_sound):
    never = {**OURS, "votes": "never"}
    learners = plain(never, never)
    task = coordinated(learners, rounds=2)
    verdict = task.run()
    assert verdict["phase"] == "Complete"
    assert verdict["latest"]["accepted"] is False
    assert verdict["score"] == verdict["result"]["testScore"] == 0.0, "of the first weights, not of what was proposed"
    assert verdict["result"]["accepted"] == 0
    history_is_sound(task, learners, rounds=2)


def test_one_learner_alone_accepts_everything(plain, coordinated, history_is_sound):
    learners = plain({**OURS, "votes": "never"})
    task = coordinated(learners, rounds=2)
    assert task.run()["round"]["accepted"] == 2
    history_is_sound(task, learners, rounds=2)


def test_a_model_that_cannot_be_set_up_fails_the_task_at_once(plain, coordinated):
    task = coordinated(plain(OURS, OURS), rounds=2, model={"name": "NOPE"})
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "SetupRefused")
    assert verdict["message"].startswith("learner-")
    assert "no model NOPE, only PLAIN" in verdict["message"]
    assert verdict["result"] is None


def test_the_verdict_is_repeated_and_nothing_else_done(plain, coordinated):
    learners = plain(OURS, OURS)
    task = coordinated(learners, rounds=2)
    first = task.run()
    for learner in learners:
        learner.kill()
    task.last_word.unlink()
    task.config["learners"][0]["address"] = "127.0.0.1:1"  # addresses change between starts
    task.config["task"]["uid"] = "uid-2"
    assert task.run() == {**first, "uid": "uid-2"}


def test_more_rounds_than_before_go_on_where_it_was(plain, coordinated, history_is_sound):
    learners = plain(OURS, OURS)
    task = coordinated(learners, rounds=2)
    task.run()
    task.config["rounds"] = 5
    task.run()
    history_is_sound(task, learners, rounds=5)
    assert len(learners[0].events("setup")) == 1


def test_another_tasks_state_is_refused(plain, coordinated):
    learners = plain(OURS, OURS)
    task = coordinated(learners, rounds=2)
    task.run()
    task.config["seed"] = 8
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "StateOfAnotherTask")
    assert len(task.records()) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "no JSON"),
        ('{"version": 1}', "task: is missing"),
        ("", "No such file"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_a_verdict(coordinated, content, told):
    task = coordinated([], rounds=1)
    task.raw_config = content
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "InvalidConfig")
    assert told in verdict["message"]


def test_a_configuration_that_cannot_be_used_and_nowhere_to_say_so(coordinated):
    task = coordinated([], rounds=1)
    task.last_word.mkdir()
    assert task.start().wait(60) == 2
    assert "learners: [] is not a list of at least one learner" in task.log


def test_http_tells_while_it_runs(plain, coordinated, wait_until):
    learners = plain(*[{**OURS, "train_s": 0.05}] * 2)
    task = coordinated(learners, rounds=100_000)
    process = task.start()
    wait_until(lambda: task.status()["round"]["current"] >= 2, "second round")
    status = task.status()
    assert (status["phase"], status["result"]) == ("Running", None)
    assert {one["state"] for one in status["learners"]} <= {"Ready", "Training", "Testing"}
    assert task.get("/healthz") == task.get("/readyz") == "ok\n"
    series = task.get("/metrics")
    for name in (
        'collective_rounds_total{result="accepted"}',
        'collective_round_duration_seconds_count{phase="propose"}',
        'collective_votes_total{vote="for"}',
        'collective_score{kind="test",learner="learner-0"}',
        'collective_rpc_duration_seconds_count{code="OK",method="TestWeights"}',
        'collective_rpc_bytes_total{direction="sent"}',
        "collective_checkpoint_duration_seconds_count",
    ):
        assert name in series

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 143
    assert not task.last_word.exists(), "stopping is no verdict"


def test_sigterm_stops_the_learners_training(plain, coordinated, wait_until, history_is_sound):
    rule = {"method": "ProposeWeights", "call": 2, "do": "hang"}
    learners = plain({**OURS, "rules": [rule]}, OURS)
    task = coordinated(learners, rounds=4)
    process = task.start()
    wait_until(lambda: len(learners[0].events("train")) == 2, "round that hangs")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    wait_until(lambda: learners[0].events("released"), "end of the training")
    task.run()
    history_is_sound(task, learners, rounds=4)


def test_sigterm_before_anything_has_begun(tmp_path, wait_until):
    """As a container's first process it would not hear a signal that it has no handler for."""
    config = tmp_path / "config"
    os.mkfifo(config)
    command = [sys.executable, "-m", "collective_coordinator", f"--config={config}", f"--state-dir={tmp_path}"]
    process = subprocess.Popen(command)
    writers = []

    def being_read():
        with contextlib.suppress(OSError):
            writers.append(os.open(config, os.O_WRONLY | os.O_NONBLOCK))
        return writers

    try:
        wait_until(being_read, "reader")
        # Again and again: one that comes right before the read begins does not interrupt it, and Python hears it later.
        wait_until(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None, "end")
        assert process.wait() == 143
    finally:
        process.kill()
        process.wait(60)
        for writer in writers:
            os.close(writer)


def demo_of(learner, *, rounds):
    return [
        sys.executable,
        "-c",
        "from collective_coordinator.cli import demo; demo()",
        "--port",
        str(learner.port),
        "--n_learners",
        "1",
        "--dataloader_tag",
        "PLAIN",
        "--model_tag",
        "PLAIN",
        "--n_rounds",
        str(rounds),
    ]


def test_demo_prints_the_rounds(plain):
    (learner,) = plain({"epsilon": 1.5})
    result = subprocess.run(demo_of(learner, rounds=2), capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.count("selected proposer:  learner-0") == 2
    assert "new model accepted: yes" in result.stdout
    assert "learner-0    (proposer)      0.005       0.01" in result.stdout
    assert "epsilon 1.5 of 8" in result.stdout
    assert learner.events("setup")[0]["parameters"] == {"location": "0/1"}


def test_demo_ends_cleanly_when_interrupted(plain, wait_until):
    (learner,) = plain({"train_s": 0.1})
    process = subprocess.Popen(demo_of(learner, rounds=100_000), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: len(learner.events("train")) >= 2, "second round")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(60)
    assert (process.returncode, errors.decode().strip()) == (130, "Interrupted")
