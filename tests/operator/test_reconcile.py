"""The pure reconcile, by tables: how a task begins, comes to run, and meets its deadlines."""

from __future__ import annotations

import json
from dataclasses import replace

from .world import PLATFORM, World, manifest, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}


def test_accepted_before_any_child_exists() -> None:
    world = World()
    first = world.look()
    assert first.actions == ()
    assert world.condition("Accepted")["status"] == "True"
    assert first.requeue_after == 0
    second = world.look()
    assert [action.manifest["kind"] for action in second.actions] == [
        "Service",
        "ConfigMap",
        "NetworkPolicy",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "Pod",
        "Pod",
    ]


def test_the_status_links_to_the_dashboard_in_the_write_that_accepts_the_task() -> None:
    world = World()
    world.platform = replace(PLATFORM, grafana_url="https://grafana.example.com/sub/")
    first = world.look()
    link = "https://grafana.example.com/sub/d/collective-task?var-namespace=default&var-task=digits"
    assert first.status is not None
    assert first.status["dashboard"] == link
    world.settle()
    assert world.look().status is None, "nothing is written again"
    world.platform = PLATFORM
    world.settle()
    assert "dashboard" not in world.status


def test_a_learner_that_is_not_ready_is_where_the_coordinator_says() -> None:
    world = World()
    world.settle()
    world.run_all()
    (ready,) = world.pods["digits-learner-1"]["status"]["conditions"]
    ready["status"] = "False"
    world.settle()
    assert world.status["learnerStatuses"][1]["state"] == "Starting"
    for state in ("Connecting", "SettingUp"):
        world.progress = progress("Waiting", 0, learners=[{"name": "learner-1", "state": state}])
        world.settle()
        assert world.status["learnerStatuses"][1]["state"] == state
        assert (world.status["learners"]["ready"], world.status["phase"]) == (1, "Starting")


def test_phases_on_the_way() -> None:
    world = World()
    world.settle()
    assert world.status["phase"] == "Pending"
    world.run("digits-learner-0")
    world.run(COORDINATOR)
    world.progress = progress("Waiting", 0, learners=[{"name": "learner-1", "state": "Connecting"}])
    world.settle()
    assert world.status["phase"] == "Starting"
    assert world.condition("Progressing")["message"] == "the coordinator waits for learners: learner-1"
    world.run_all()
    world.progress = progress(current=0)
    world.settle()
    assert world.status["phase"] == "Running"
    world.progress = progress(
        current=3,
        latest={"round": 3, "testScore": 0.91234567, "voteScore": None, "proposer": "learner-0", "accepted": True},
    )
    world.look(5)
    assert world.status["round"] == {
        "current": 3,
        "total": 20,
        "accepted": 3,
        "summary": "3/20",
        "lastTime": "2026-01-01T00:00:05Z",
    }
    assert world.status["score"] == 0.9123
    world.progress = progress(current=4, latest={"round": 4, "testScore": 0.1, "proposer": "x", "accepted": False})
    world.look(5)
    assert world.status["score"] == 0.9123, "a rejected proposal does not change the score of what is held"
    rejected = {"round": 9, "testScore": 0.1, "proposer": "x", "accepted": False}
    world.progress = progress(current=9, latest=rejected, score=0.95)
    world.look(5)
    assert world.status["score"] == 0.95, "what was accepted between two looks is held, too"


def test_deadlines() -> None:
    world = World(policy={"preRunningDeadlineSeconds": 100})
    world.settle()
    assert world.look(99).requeue_after == 1
    world.spend(1)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded"
    assert world.pods == {} and world.look().requeue_after is None

    waiting = World(policy={"preRunningDeadlineSeconds": 100})
    waiting.settle()
    waiting.run_all()
    waiting.progress = progress("Waiting", 0)
    waiting.look(150)
    assert waiting.status["phase"] == "Starting", "the coordinator itself gives up, and says who is missing"
    waiting.look(100)
    assert waiting.status["phase"] == "Failed"

    active = running(policy={"activeDeadlineSeconds": 50})
    active.spend(50)
    assert active.condition("Failed")["reason"] == "ActiveDeadlineExceeded"
    assert active.pods == {}


def test_a_running_task_meets_the_pre_running_deadline_again_when_it_stops_running() -> None:
    world = running(policy={"preRunningDeadlineSeconds": 100})
    world.look(10_000)
    assert world.status["phase"] == "Running"
    world.pods[COORDINATOR]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.progress = None
    world.look()
    assert world.status["phase"] == "Starting"
    world.look(100)
    assert world.status["phase"] == "Failed"


def test_an_invalid_spec() -> None:
    world = World(policy={"minLearners": 9})
    world.look()
    assert world.status["phase"] == "Failed"
    assert world.condition("Accepted")["reason"] == world.condition("Failed")["reason"] == "InvalidSpec"
    assert "spec.policy.minLearners" in world.condition("Accepted")["message"]
    assert world.look(10).status is None
    world.task["spec"]["policy"] = {}
    world.task["metadata"]["generation"] = 2
    world.settle()
    assert len(world.pods) == 3
    assert world.status["observedGeneration"] == 2


def test_a_spec_that_this_operator_is_too_old_for_deletes_nothing() -> None:
    world = running()
    world.task["spec"]["newThing"] = 1
    decision = world.look()
    assert decision.actions == ()
    assert world.condition("Accepted")["status"] == "False"
    assert world.status["phase"] == "Pending"
    assert len(world.pods) == 3
    del world.task["spec"]["newThing"]
    world.settle()
    assert world.status["phase"] == "Running"


def test_a_task_that_goes_is_left_alone() -> None:
    world = running()
    world.task["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.pods.clear()
    decision = world.look()
    assert (decision.actions, decision.status, decision.events, decision.requeue_after) == ((), None, (), None)


def test_events_once_per_transition() -> None:
    world = running()
    for _ in range(5):
        world.look(5)
    assert sorted(world.told) == sorted({*world.told})
    assert {reason for _, reason in world.told} == {"Accepted", "AllReady", "Serving", "RoundsRunning"}


def test_a_task_of_many_learners_stays_small() -> None:
    world = World(learners={"count": 256})
    world.settle()
    assert len(world.pods) == 257
    assert len(json.dumps(world.status)) < 40_000
    assert manifest()["spec"]["learners"]["count"] == 2
