"""Pods that crash: counted in a row, tried again less and less often, and then a true failure with its cause."""

from __future__ import annotations

from datetime import timedelta

import pytest

from collective_operator.api.task import Backoff
from collective_operator.reconcile import Create, Delete

from .world import World, progress, running

COORDINATOR = "digits-coordinator"
FIRST, SECOND = "digits-learner-0", "digits-learner-1"
OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


def crash(world: World, name: str, restarts: int) -> None:
    """Say of a pod that its container waits to be started for the so-manieth time."""
    world.pods[name]["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "containerStatuses": [
            {"restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": OOM}
        ],
    }


def failures(world: World, index: int) -> int:
    return int(world.status["learnerStatuses"][index].get("failures", {}).get("count", 0))


def decide(world: World, *rounds: int) -> None:
    for number in rounds:
        world.progress = progress(current=number)
        world.settle()


def test_a_learner_whose_init_container_crashes_is_given_up_too() -> None:
    world = running(policy={"minLearners": 1, "backoff": {"limit": 2}})
    for restarts in (1, 2, 3):
        prep = {"name": "prep", "restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        world.pods[SECOND]["status"] = {
            "phase": "Pending",
            "conditions": [{"type": "Initialized", "status": "False"}],
            "initContainerStatuses": [{**prep, "lastState": OOM}],
            "containerStatuses": [{"restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}],
        }
        world.look(5)
    world.settle()
    assert SECOND not in world.pods, "what it held is free"
    told = "given up after crash 3 in a row; last: container prep: CrashLoopBackOff, OOMKilled, exit code 137"
    assert world.status["learnerStatuses"][1]["message"] == f"{SECOND}: {told}"


@pytest.mark.parametrize("look_at", [[1, 2, 3], [3]], ids=["each", "late"])
def test_a_learner_that_crashes_too_often_in_a_row_is_given_up(look_at: list[int]) -> None:
    world = running(policy={"minLearners": 1, "backoff": {"limit": 2}})
    for restarts in look_at:
        crash(world, SECOND, restarts)
        decision = world.look(5)
    assert [(type(action), action.manifest["metadata"]["name"]) for action in decision.actions] == [(Delete, SECOND)]
    world.settle()
    assert set(world.pods) == {FIRST, COORDINATOR}, "what it held is free"
    told = "digits-learner-1: given up after crash 3 in a row; last: CrashLoopBackOff, OOMKilled, exit code 137"
    learner = world.status["learnerStatuses"][1]
    assert (learner["state"], learner["message"]) == ("BackoffLimitExceeded", told)
    assert world.condition("LearnersReady")["message"] == f"1 of 2 ready; {told}"
    assert (world.status["phase"], world.condition("LearnersReady")["reason"]) == ("Running", "QuorumReady")
    assert world.told.count(("Warning", "BackoffLimitExceeded")) == 1
    decide(world, 5, 6, 7, 8)
    assert world.status["learnerStatuses"][1] == learner | {"failures": {**learner["failures"], "round": 8}}
    assert SECOND not in world.pods, "it stays given up"
    world.task["spec"]["policy"]["backoff"]["limit"] = 3
    world.settle()
    assert SECOND in world.pods, "until it is forgiven more"


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_learner_that_was_told_to_go_has_not_crashed(phase: str) -> None:
    world = running(policy={"backoff": {"limit": 0}})
    pod = world.pods[SECOND]
    pod["metadata"]["deletionTimestamp"] = world.now.isoformat()
    pod["metadata"]["finalizers"] = ["kueue.x-k8s.io/managed"]
    world.end(SECOND, 143)
    pod["status"]["phase"] = phase
    world.look(5)
    assert failures(world, 1) == 0 and world.status["phase"] == "Running"
    del world.pods[SECOND]
    world.settle()
    assert SECOND in world.pods and world.status["phase"] == "Running"


def test_that_one_is_given_up_is_one_event_also_where_it_is_what_the_task_waits_for() -> None:
    world = running(learners={"count": 3, "location": "x"}, policy={"minLearners": 2, "backoff": {"limit": 0}})
    world.wait(FIRST, "ContainerCreating")
    world.settle()
    crash(world, SECOND, 1)
    world.settle()
    assert world.condition("LearnersReady")["reason"] == "BackoffLimitExceeded"
    assert world.told.count(("Warning", "BackoffLimitExceeded")) == 1


def test_too_few_left_is_the_end_with_the_cause() -> None:
    world = running(policy={"backoff": {"limit": 0}})
    crash(world, SECOND, 1)
    world.settle()
    failed = world.condition("Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert failed["message"] == (
        "digits-learner-1: given up after crash 1 in a row; last: CrashLoopBackOff, OOMKilled, exit code 137"
    )
    assert world.pods == {}


@pytest.mark.parametrize("name", ["digits-learner-1", COORDINATOR])
def test_the_cause_is_told_also_where_all_was_well_again_when_somebody_looked(name: str) -> None:
    """An operator that was away sees a pod that is ready, and has been restarted."""
    world = running(policy={"backoff": {"limit": 0}})
    world.run(name, restarts=1)
    (container,) = world.pods[name]["status"]["containerStatuses"]
    container["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    world.look()
    assert "OOMKilled, exit code 137" in world.condition("Failed")["message"]


def test_two_rounds_while_it_was_ready_make_up_for_all() -> None:
    world = running(policy={"minLearners": 1, "backoff": {"limit": 2}})
    crash(world, SECOND, 2)
    decide(world, 2, 3, 4)
    assert failures(world, 1) == 2, "rounds that others decide are not its own"
    world.run(SECOND, restarts=2)
    decide(world, 5)
    assert failures(world, 1) == 2, "it may not have taken part"
    decide(world, 6)
    assert failures(world, 1) == 0 and "failures" not in world.status["learnerStatuses"][1]
    crash(world, SECOND, 4)
    world.settle()
    assert failures(world, 1) == 2
    assert SECOND in world.pods


def test_a_crash_in_every_round_is_not_forgiven_by_the_rounds_of_the_others() -> None:
    world = running(policy={"minLearners": 1})
    for number in range(1, 7):
        crash(world, SECOND, number)
        decide(world, 2 * number)
        if SECOND in world.pods:
            world.run(SECOND, restarts=number)
            decide(world, 2 * number + 1)
    assert world.status["learnerStatuses"][1]["state"] == "BackoffLimitExceeded"


def test_pods_that_end_are_replaced_less_and_less_often() -> None:
    world = running(policy={"minLearners": 1, "backoff": {"limit": 9, "initialSeconds": 10, "maxSeconds": 60}})
    world.now += timedelta(seconds=1000)
    for wait in (0, 20, 40, 60, 60):
        world.pods[SECOND]["status"] = {"phase": "Failed", "reason": "OutOfcpu", "message": "no room"}
        if wait:
            assert world.look().requeue_after == min(wait, 5)
            assert world.look(wait - 1).actions == (), "a node that refuses pods is not asked in a tight loop"
            world.now += timedelta(seconds=1)
        assert [type(action) for action in world.look().actions] == [Delete]
        assert [type(action) for action in world.look().actions] == [Create]
    assert failures(world, 1) == 5
    assert world.told.count(("Warning", "Replaced")) == 5, "each is told once, when there is another"


@pytest.mark.parametrize("lingers", [True, False])
def test_why_a_pod_ended_is_told_with_the_one_that_replaces_it(lingers: bool) -> None:
    world = running(policy={"minLearners": 1})
    world.pods[SECOND]["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
    world.lingering = {SECOND} if lingers else set()
    assert [type(action) for action in world.look(10).actions] == [Delete]
    if lingers:
        world.look(1)
        del world.pods[SECOND]
    (replaced,) = [event.message for event in world.look(1).events if event.reason == "Replaced"]
    assert replaced.startswith("digits-learner-1 is gone and is created anew (")
    assert replaced.endswith("Evicted: low on memory)")
    assert world.told.count(("Warning", "Replaced")) == 1


def test_a_pod_that_has_ended_counts_once_and_one_that_somebody_deletes_not_at_all() -> None:
    world = running(policy={"minLearners": 1})
    for _ in range(20):
        del world.pods[SECOND]
        world.settle()
        assert SECOND in world.pods, "drained, again and again: that is no crash"
    assert failures(world, 1) == 0
    world.pods[SECOND]["status"] = {"phase": "Failed"}
    for _ in range(5):
        world.look(1)
    assert failures(world, 1) == 1


def test_the_coordinator_has_the_same_limit() -> None:
    world = running(policy={"backoff": {"limit": 1}})
    world.run(COORDINATOR, restarts=1)
    world.look()
    assert world.status["phase"] == "Running"
    crash(world, COORDINATOR, 2)
    world.settle()
    failed = world.condition("Failed")
    assert failed["reason"] == "CoordinatorFailed"
    assert failed["message"] == (
        "the coordinator ended or was lost 2 times without deciding a round; last: "
        "digits-coordinator: CrashLoopBackOff, OOMKilled, exit code 137"
    )


def test_a_learner_gone_tells_why_when_its_pod_said_so() -> None:
    world = running()
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}
    world.pods[FIRST]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    world.pods[FIRST]["status"]["conditions"].append(target)
    world.look()
    del world.pods[FIRST]
    events = world.look().events
    (replaced,) = [event.message for event in events if event.reason == "Replaced"]
    assert replaced == (
        "digits-learner-0 is gone and is created anew (is being deleted: EvictionByEvictionAPI: evicting)"
    )


def test_delays() -> None:
    backoff = Backoff.model_validate({"initialSeconds": 3, "maxSeconds": 100})
    assert [backoff.delay(count) for count in (0, 1, 2, 3, 6, 7, 10_000)] == [3, 3, 6, 12, 96, 100, 100]


def test_a_clock_that_was_set_back_makes_nothing_wait_for_days() -> None:
    world = running()
    world.spend(3600)
    world.pods["digits-learner-0"]["status"] = {"phase": "Failed", "reason": "Evicted"}
    world.now -= timedelta(days=2)
    world.spend(0)
    assert world.pods["digits-learner-0"]["status"]["phase"] == "Pending", "it was made anew"
