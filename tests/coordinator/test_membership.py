"""Learners join and leave while rounds run: real processes, told by the configuration's file alone."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest

ROUNDS = 250  # at 0.2 s of training: many times as long as it takes to see the file


@pytest.fixture
def hurry(tmp_path) -> Path:
    """A file to be made once all is seen: the rounds that are left take no time then."""
    return tmp_path / "hurry"


@pytest.fixture
def ours(hurry) -> dict[str, object]:
    return {"extensions": True, "train_s": 0.2, "hurry": str(hurry)}


def rewrite(task, text: str) -> None:
    """Replace the configuration as a kubelet does: at once."""
    aside = task.directory / "aside.json"
    aside.write_text(text)
    os.replace(aside, task.directory / "coordinator.json")


def reconfigure(task, learners, indices, **more) -> None:
    config = {**copy.deepcopy(task.config), **more}
    config["learners"] = [
        {"name": f"learner-{index}", "address": f"127.0.0.1:{learners[index].port}", "location": f"{index}"}
        for index in indices
    ]
    config["policy"]["minLearners"] = more.pop("quorum", len(config["learners"]))
    task.config = config
    rewrite(task, json.dumps(config))


def names(task) -> list[str]:
    return [learner["name"] for learner in task.status()["learners"]]


def test_one_joins_with_the_current_weights_and_no_round_waits(
    plain, coordinated, wait_until, history_is_sound, tmp_path, ours, hurry
):
    loaded = tmp_path / "loaded"
    learners = plain(ours, ours, {**ours, "rules": [{"method": "MLSetup", "call": 1, "do": f"until:{loaded}"}]})
    task = coordinated(learners[:2], rounds=ROUNDS)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 3, "three rounds")
    reconfigure(task, learners, (0, 1, 2))
    wait_until(lambda: names(task) == ["learner-0", "learner-1", "learner-2"], "third learner in the status")
    decided = len(task.records())
    wait_until(lambda: len(task.records()) > decided + 2, "rounds while it is set up, though the quorum is all")
    assert not any("learner-2" in record["testScores"] for record in task.records())
    loaded.touch()
    wait_until(lambda: "learner-2" in task.records()[-1]["testScores"], "round with the third learner")
    hurry.touch()
    assert process.wait(120) == 0, task.log
    history_is_sound(task, learners, rounds=ROUNDS)
    joined = [event["event"] for event in learners[2].events("setup", "set", "train", "test", "accept")]
    assert joined[:2] == ["setup", "set"]
    assert any(record["proposer"] == "learner-2" for record in task.records())
    assert "is lost" not in task.log and "left out" not in task.log
    verdict = task.verdict()
    assert verdict["phase"] == "Complete" and len(verdict["learners"]) == 3
    # The verdict is that of the configuration now in the file.
    assert task.run() == verdict
    assert "the verdict has been given before" in task.log


def test_one_leaves_and_nobody_is_at_fault(plain, coordinated, wait_until, history_is_sound, ours, hurry):
    learners = plain(ours, ours, ours)
    task = coordinated(learners, rounds=ROUNDS)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 3, "three rounds")
    reconfigure(task, learners, (0, 2))
    wait_until(lambda: names(task) == ["learner-0", "learner-2"], "two learners in the status")
    decided = task.status()["round"]["current"]  # the line of the last one may not be written yet
    assert 'learner="learner-1"' not in task.get("/metrics")
    learners[1].kill()
    hurry.touch()
    assert process.wait(120) == 0, task.log
    history_is_sound(task, [learners[0], learners[2]], rounds=ROUNDS)
    assert "learner-1 leave" in task.log
    assert "is lost" not in task.log and "left out" not in task.log
    later = task.records()[decided + 1 :]
    assert later and all(set(record["testScores"]) == {"learner-0", "learner-2"} for record in later)
    assert not any("leftOut" in record for record in later)


def test_a_task_that_waits_for_a_dead_learner_goes_on_without_it(plain, coordinated, wait_until, history_is_sound):
    learners = plain({"extensions": True}, {"extensions": True})
    learners[1].kill()
    task = coordinated(learners, rounds=4)
    process = task.start()
    wait_until(lambda: "learner-1" in task.status()["message"], "wait for the dead learner")
    reconfigure(task, learners, (0,))
    assert process.wait(120) == 0, task.log
    assert task.verdict()["phase"] == "Complete"
    history_is_sound(task, learners[:1], rounds=4)


def test_who_cannot_join_ends_nothing(plain, coordinated, wait_until, ours, hurry):
    refusal = {"method": "MLSetup", "do": "INVALID_ARGUMENT"}
    learners = plain(ours, ours, {**ours, "rules": [refusal]})
    task = coordinated(learners[:2], rounds=ROUNDS)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 3, "three rounds")
    reconfigure(task, learners, (0, 1, 2))

    def refused() -> bool:
        shown = {learner["name"]: learner for learner in task.status()["learners"]}
        return "as the script says" in shown.get("learner-2", {}).get("message", "")

    wait_until(refused, "refusal in the status")
    hurry.touch()
    assert process.wait(120) == 0, task.log
    assert task.verdict()["reason"] == "RoundsCompleted"
    assert "learner-2 cannot join" in task.log


def test_what_else_changes_is_told_and_ignored(plain, coordinated, wait_until, ours, hurry):
    learners = plain(ours, ours)
    task = coordinated(learners, rounds=ROUNDS)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 3, "three rounds")
    rewrite(task, "{")
    wait_until(lambda: "cannot be read anew, the task goes on as it is" in task.log, "line about the broken file")
    rewrite(task, json.dumps({**task.config, "rounds": 5, "seed": 8}))
    wait_until(lambda: "has changed in seed, stop: ignored while the task runs" in task.log, "line about the change")
    hurry.touch()
    assert process.wait(120) == 0, task.log
    assert len(task.records()) == ROUNDS
    assert task.log.count("cannot be read anew") == 1
