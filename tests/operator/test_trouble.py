"""Pods that do not start, crash, end or vanish, and children that the cluster refuses: what is said and done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from collective_operator.reconcile import Create, Delete, reconcile

from .world import PLATFORM, World, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes: no GPU",
                    }
                ],
            },
            "Unschedulable",
            "digits-learner-0: Unschedulable: 0/1 nodes: no GPU",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
                ],
            },
            "ImageUnavailable",
            "digits-learner-0: ImagePullBackOff: not found",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {
                        "restartCount": 0,
                        "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no ConfigMap"}},
                    }
                ],
            },
            "ContainerNotCreated",
            "no ConfigMap",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "restartCount": 4,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    }
                ],
            },
            "Crashing",
            "CrashLoopBackOff, OOMKilled, exit code 137",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "PodLost", "Evicted: low on disk"),
        (
            {"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "reason": "NodeStatusUnknown"}]},
            "PodLost",
            "its node does not answer",
        ),
    ],
)
def test_trouble_in_kubernetes_own_words(status: dict[str, Any], reason: str, words: str) -> None:
    world = running()
    world.pods["digits-learner-0"]["status"] = status
    world.look()
    found = world.condition("LearnersReady")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert words in found["message"]
    assert "back-off" not in found["message"]
    assert ("Warning", reason) in world.told
    told = len(world.told)
    world.look(1)
    assert len(world.told) == told, "once"


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize("name", ["digits-learner-0", COORDINATOR])
def test_a_pod_that_has_ended_is_made_anew_but_not_in_a_tight_loop(name: str, phase: str) -> None:
    world = running()
    old = world.pods[name]["metadata"]["uid"]
    world.pods[name]["status"] = {"phase": phase}
    world.progress = None
    young = world.look(3)
    assert young.actions == () and young.requeue_after is not None and young.requeue_after <= 7
    deleted = world.look(7)
    assert [type(action) for action in deleted.actions] == [Delete]
    made = world.look()
    assert [action.manifest["metadata"]["name"] for action in made.actions] == [name]
    assert isinstance(made.actions[0], Create)
    assert world.pods[name]["metadata"]["uid"] != old


def test_a_pod_that_is_going_is_waited_for() -> None:
    world = running()
    world.pods["digits-learner-0"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.look(60).actions == ()
    assert world.condition("LearnersReady")["reason"] == "PodLost"


def test_a_quorum_is_enough() -> None:
    world = running(policy={"minLearners": 1})
    world.wait("digits-learner-1", "ImagePullBackOff")
    world.look()
    found = world.condition("LearnersReady")
    assert (found["status"], found["reason"]) == ("True", "QuorumReady")
    assert world.status["phase"] == "Running"
    assert world.status["learners"] == {"desired": 2, "ready": 1, "failed": 1, "summary": "1/2"}


def test_a_coordinator_is_lost_a_few_times_and_progress_forgives() -> None:
    world = running()

    def lose() -> None:
        del world.pods[COORDINATOR]
        world.progress = None
        world.settle()

    for _ in range(5):
        lose()
    assert world.status["coordinator"]["attempts"] == 5
    world.run_all()
    world.progress = progress(current=2)
    world.settle()
    assert world.status["coordinator"]["attempts"] == 0
    for _ in range(5):
        lose()
    assert world.status["phase"] == "Starting"
    lose()
    assert world.condition("Failed")["reason"] == "CoordinatorFailed"
    assert world.pods == {}


def test_restarts_in_place_are_attempts_too() -> None:
    world = running()
    world.run(COORDINATOR, restarts=5)
    world.look()
    assert world.status["coordinator"]["attempts"] == 5
    world.run(COORDINATOR, restarts=6)
    world.look()
    assert world.condition("Failed")["reason"] == "CoordinatorFailed"


def test_one_answer_that_did_not_come_is_no_news() -> None:
    world = running()
    world.progress = None
    assert world.look(5).status is None
    world.progress = progress(phase="Waiting", current=1)
    world.look()
    world.progress, world.silent = None, 5
    assert world.look(5).status is None, "it waited a moment ago"


def test_a_coordinator_that_has_never_answered_is_silent_after_a_minute_and_not_as_soon_as_it_is_ready() -> None:
    never = World()
    never.settle()
    never.run_all()
    never.silent = 8
    never.look(8)
    found = never.condition("Progressing")
    assert (found["status"], found["reason"]) == ("False", "WaitingForCoordinator")
    assert ("Warning", "CoordinatorSilent") not in never.told
    never.silent = 60
    never.look(52)
    assert never.condition("Progressing")["reason"] == "CoordinatorSilent"
    never.silent = 0
    assert never.look(5).status is None, "another operator has not asked it for as long"
    never.look(100_000)
    assert never.status["phase"] == "Starting", "its rounds may run: it has bounds of its own"
    assert never.told.count(("Warning", "CoordinatorSilent")) == 1


def test_what_the_cluster_refuses_is_told_and_tried_again() -> None:
    world = World()
    world.look()
    world.refused = {"digits-learner-1": "exceeded quota: gpus"}
    decision = world.look()
    assert world.condition("LearnersReady")["reason"] == "CreateRefused"
    assert "digits-learner-1: exceeded quota: gpus" in world.condition("LearnersReady")["message"]
    assert world.status["learnerStatuses"][1]["state"] == "CreateRefused"
    assert decision.requeue_after == 2
    world.refused = {}
    world.settle()
    assert "digits-learner-1" in world.pods
    assert ("Warning", "Replaced") not in world.told


def test_a_lost_pod_is_replaced_when_another_is_made_and_not_each_time_that_one_is_refused() -> None:
    world = running()
    del world.pods[COORDINATOR], world.pods["digits-learner-1"]
    world.progress, world.refused = None, {COORDINATOR: "exceeded quota", "digits-learner-1": "exceeded quota"}
    for _ in range(3):
        world.look(60)
        assert ("Warning", "Replaced") not in world.told
    assert world.told.count(("Warning", "CreateRefused")) == 1
    world.refused = {}
    events = world.look(60).events
    told = [event.message for event in events if event.reason == "Replaced"]
    assert told == [f"{COORDINATOR} is gone and is created anew"], "a quota is not why it went"
    assert {COORDINATOR, *LEARNERS} == set(world.pods)


def test_a_coordinator_is_not_said_to_know_of_what_could_not_be_written() -> None:
    world = running(learners={"count": 2, "location": "x"})
    world.task["spec"]["learners"]["count"] = 3
    world.refused = {COORDINATOR: "a policy"}
    assert ("Normal", "Reconfigured") not in [(event.type, event.reason) for event in world.look().events]


@pytest.mark.parametrize("name", ["digits-learner-1", "digits-learners"])
def test_what_the_cluster_has_refused_is_not_asked_for_before_its_time(name: str) -> None:
    world = running()
    del world.pods["digits-learner-1"]
    del world.children["services"]["digits-learners"]
    refused = {name: "exceeded quota", "digits-learners": "exceeded quota"}
    observed = replace(world.observed(), refused=refused, refused_seconds=40)
    decision = reconcile(task=world.task, observed=observed, now=world.now, platform=PLATFORM)
    assert decision.actions == ()
    assert decision.status
    assert decision.status["learnerStatuses"][1]["message"] == "digits-learner-1: exceeded quota"
    assert decision.requeue_after == PLATFORM.poll_seconds
    held = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    world.pods["digits-coordinator"]["status"] = {"phase": "Pending", "conditions": [held]}
    observed = replace(observed, pods=world.observed().pods)
    assert reconcile(task=world.task, observed=observed, now=world.now, platform=PLATFORM).requeue_after == 40


def test_a_queue_is_waited_in_without_a_warning() -> None:
    world = World()
    world.settle()
    for name in world.pods:
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "blocked"}
        world.pods[name]["status"] = {"phase": "Pending", "conditions": [gated]}
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Pending", "SchedulingGated")
    assert world.condition("LearnersReady")["message"].endswith("digits-learner-1: SchedulingGated: blocked")
    assert world.status["learners"]["failed"] == 0, "nothing is wrong with them"
    assert ("Normal", "SchedulingGated") in world.told
    assert [reason for kind, reason in world.told if kind == "Warning"] == []
