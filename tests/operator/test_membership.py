"""Learners are added and taken away while a task waits or runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collective_operator.reconcile import Create, Update

from .world import World, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}


def members(*indices: int) -> list[dict[str, Any]]:
    return [{"name": f"learner-{index}", "state": "Ready"} for index in indices]


def test_more_learners_while_it_runs() -> None:
    world = running(learners={"count": 2, "location": "x{index}"})
    uids = {name: pod["metadata"]["uid"] for name, pod in world.pods.items()}
    world.progress = progress(learners=members(0, 1))
    world.settle()
    world.task["spec"]["learners"]["count"] = 4
    decision = world.look()
    assert [(type(action), action.manifest["metadata"]["name"]) for action in decision.actions] == [
        (Update, COORDINATOR),
        (Create, "digits-learner-2"),
        (Create, "digits-learner-3"),
    ]
    told = json.loads(world.children["config_maps"][COORDINATOR]["data"]["coordinator.json"])
    assert [learner["name"] for learner in told["learners"]] == [f"learner-{index}" for index in range(4)]
    assert told["policy"]["minLearners"] == 4
    assert {name: world.pods[name]["metadata"]["uid"] for name in uids} == uids, "nothing that runs is touched"
    assert world.status["phase"] == "Running"
    assert world.status["learners"]["summary"] == "2/4"
    assert ("Normal", "Reconfigured") in world.told and ("Warning", "Replaced") not in world.told
    world.run_all()
    world.settle()
    assert world.look(5).actions == (), "once"
    assert world.status["learners"]["summary"] == "4/4"


def test_fewer_learners_while_it_runs() -> None:
    world = running(learners={"count": 4, "location": "x{index}"})
    world.progress = progress(learners=members(0, 1, 2, 3))
    world.settle()
    world.task["spec"]["learners"]["count"] = 2
    decision = world.look()
    assert [type(action) for action in decision.actions] == [Update]
    assert world.status["learners"]["summary"] == "2/2"
    waiting = world.look(60)
    assert waiting.actions == () and waiting.requeue_after == 5, "the coordinator still works with them"
    world.progress = progress(learners=members(0, 1, 3))
    assert [action.manifest["metadata"]["name"] for action in world.look().actions] == ["digits-learner-2"]
    world.pods["digits-learner-3"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.progress = progress(learners=members(0, 1))
    assert world.look().actions == (), "it goes already"
    del world.pods["digits-learner-3"]
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}
    assert world.status["phase"] == "Running"
    assert not [reason for kind, reason in world.told if kind == "Warning"]


@pytest.mark.parametrize("answers", [True, False])
def test_fewer_learners_before_any_round(answers: bool) -> None:
    world = World(learners={"count": 3, "location": "x"})
    world.settle()
    world.wait("digits-learner-2", "ImagePullBackOff")
    if answers:
        world.run(COORDINATOR)
        world.progress = progress("Waiting", 0, learners=members(0, 1))
    world.settle()
    world.task["spec"]["learners"]["count"] = 2
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}
    assert world.condition("LearnersReady")["reason"] == "Starting"


def test_an_answer_that_did_not_come_takes_no_learner_from_a_round() -> None:
    world = running(learners={"count": 3, "location": "x"})
    world.progress = progress(learners=members(0, 1, 2))
    world.settle()
    world.task["spec"]["learners"]["count"] = 2
    world.look()
    world.progress, world.silent = None, 5
    assert world.look(5).actions == (), "the coordinator may be busy with it"
    world.silent = 60
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}, "nobody waits for one that hangs"


def test_pods_that_only_look_like_learners_are_left_alone() -> None:
    world = running(learners={"count": 2})
    pods = (("digits-learner-9", "7"), ("other", "9"), ("digits-learner-x", "x"), ("digits-learner-8", None))
    for name, index in pods:
        labels = {} if index is None else {"collectivelearning.dev/learner-index": index}
        world.pods[name] = {"kind": "Pod", "metadata": {"name": name, "uid": name, "labels": labels}, "status": {}}
    assert world.look().actions == ()
