"""A task that stands still: its pods go, the coordinator first, and it goes on where it was."""

from __future__ import annotations

from datetime import timedelta

import pytest

from collective_operator.reconcile import Delete

from .world import START, World, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}
MADE = {"Service", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy"}


def suspend(world: World, wanted: bool = True) -> None:
    world.task["spec"]["suspend"] = wanted
    world.task["metadata"]["generation"] += 1


def suspended(**spec: object) -> World:
    """A task that ran, and stands still."""
    world = running(**spec)
    world.progress = progress(current=7)
    world.look()
    suspend(world)
    world.progress = None
    world.settle()
    assert world.status["phase"] == "Suspended"
    return world


def state(world: World) -> tuple[str, str]:
    found = world.condition("Suspended")
    return found["status"], found["reason"]


def test_created_suspended_it_makes_nothing_at_all() -> None:
    world = World(suspend=True)
    world.settle()
    assert world.made == 0
    assert state(world) == ("True", "Suspended")
    assert world.condition("Accepted")["status"] == "True"
    assert (world.status["phase"], world.status["reason"]) == ("Suspended", "Suspended")
    assert "startTime" not in world.status
    assert [learner["state"] for learner in world.status["learnerStatuses"]] == ["Suspended"] * 2
    assert world.look(10_000_000).requeue_after is None, "it waits for somebody, at no cost"
    suspend(world, False)
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}
    assert world.status["startTime"] == (START + timedelta(seconds=10_000_000)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "suspendedSeconds" not in world.status, "it had not started"
    assert state(world) == ("False", "Resumed")
    assert [reason for _, reason in world.told] == ["Accepted", "Suspended", "Resumed"]


def test_it_says_that_it_goes_on_before_it_has_a_pod_again() -> None:
    for world in (World(suspend=True), suspended()):
        world.settle()
        suspend(world, False)
        first = world.look()
        assert state(world) == ("False", "Resumed")
        assert (first.actions, first.accepts, first.requeue_after) == ((), True, 0)
        assert {action.manifest["metadata"]["name"] for action in world.look().actions} >= {*LEARNERS, COORDINATOR}


def test_the_coordinator_goes_first_and_only_then_the_learners() -> None:
    world = running()
    world.lingering = {COORDINATOR, *LEARNERS}
    suspend(world)
    first = world.look()
    assert [action.manifest["metadata"]["name"] for action in first.actions] == [COORDINATOR]
    assert state(world) == ("False", "Suspending")
    assert (world.status["phase"], world.status["reason"]) == ("Suspending", "Suspending")
    assert world.look(1).actions == ()
    world.pods.pop(COORDINATOR)
    second = world.look(1)
    assert {action.manifest["metadata"]["name"] for action in second.actions} == LEARNERS
    assert world.look(1).actions == ()
    assert state(world) == ("False", "Suspending"), "they hold what they hold"
    assert "digits-learner-0: is being deleted" in world.condition("Suspended")["message"]
    world.pods.clear()
    last = world.look(1)
    assert last.final, "decided on nothing but what is there"
    assert state(world) == ("True", "Suspended")
    assert last.requeue_after is None
    assert {child["kind"] for kind in world.children.values() for child in kind.values()} == MADE, "volumes stay"
    assert [kind for kind, _ in world.told if kind == "Warning"] == []


def test_a_node_that_is_gone_keeps_the_coordinator_and_not_the_learners_gpus() -> None:
    world = running()
    world.lingering = {COORDINATOR}
    suspend(world)
    assert world.look().requeue_after is None
    waits = world.look().requeue_after
    assert waits == 35
    assert {action.manifest["metadata"]["name"] for action in world.look(waits).actions} == LEARNERS
    assert state(world) == ("False", "Suspending"), "not before all pods are gone"


def lingering(**spec: object) -> World:
    """A task that is to stand still, and of which a learner's node does not answer."""
    world = running(learners={"count": 3, "location": "x"}, **spec)
    world.lingering = {"digits-learner-1"}
    suspend(world)
    world.settle()
    world.progress = None
    assert set(world.pods) == {"digits-learner-1"}
    return world


def test_crashes_of_what_nobody_hears_of_are_forgiven_like_all_others() -> None:
    world = running(policy={"minLearners": 1})
    for name in ("digits-learner-1", COORDINATOR):
        world.run(name, restarts=5)
    world.progress = progress(current=2)
    world.settle()
    world.lingering = {"digits-learner-1", COORDINATOR}
    for name in world.lingering:
        world.run(name, restarts=7)
    suspend(world)
    world.settle()
    world.spend(35)
    world.spend(90)
    assert state(world) == ("Unknown", "Suspending")
    suspend(world, False)
    world.progress = None
    world.settle()
    assert state(world) == ("False", "Resumed")
    assert world.status["learnerStatuses"][1]["state"] == "PodLost"
    assert world.status["coordinator"]["attempts"] == 0


def test_what_nobody_hears_of_keeps_no_task_from_going_on() -> None:
    world = lingering(policy={"minLearners": 2, "preRunningDeadlineSeconds": 100, "activeDeadlineSeconds": 50_000})
    suspend(world, False)
    waits = world.look().requeue_after
    assert waits == 90 and state(world) == ("False", "Suspending"), "a kubelet may only be slow"
    world.spend(waits)
    assert state(world) == ("False", "Resumed")
    assert {*LEARNERS, "digits-learner-2", COORDINATOR} == set(world.pods)
    assert "deletionTimestamp" in world.pods["digits-learner-1"]["metadata"], "no second one is made beside it"
    for name in set(world.pods) - {"digits-learner-1"}:
        world.run(name)
    world.progress = progress()
    world.settle()
    assert world.status["phase"] == "Running"
    assert world.condition("LearnersReady")["reason"] == "QuorumReady"
    assert [reason for _, reason in world.told].count("Resumed") == 1


def test_it_says_that_it_does_not_know_and_has_all_of_its_time_when_it_goes_on() -> None:
    world = lingering(policy={"preRunningDeadlineSeconds": 100, "activeDeadlineSeconds": 500})
    world.spend(90)
    assert state(world) == ("Unknown", "Suspending")
    assert world.status["phase"] == "Suspending"
    assert "digits-learner-1: is being deleted" in world.condition("Suspended")["message"]
    assert world.look(10_000).requeue_after is None, "it waits for somebody, at no cost"
    suspend(world, False)
    world.settle()
    assert state(world) == ("False", "Resumed")
    assert world.status["suspendedSeconds"] == 10_000
    assert world.look(99).requeue_after == 1
    world.look(1)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded", "it does not wait for ever"


def test_what_goes_at_last_lets_it_stand_still() -> None:
    world = lingering()
    world.spend(90)
    world.now += timedelta(seconds=500)
    world.pods.clear()
    world.settle()
    assert state(world) == ("True", "Suspended")
    world.now += timedelta(seconds=300)
    suspend(world, False)
    world.settle()
    assert world.status["suspendedSeconds"] == 800


def test_what_has_ended_goes_too_and_a_verdict_goes_before_everything() -> None:
    world = running()
    world.pods["digits-learner-0"]["status"] = {"phase": "Failed", "reason": "Evicted"}
    suspend(world)
    world.settle()
    assert world.pods == {} and state(world)[0] == "True"

    world = running()
    suspend(world)
    world.progress = progress("Complete", 20, reason="RoundsCompleted")
    world.settle()
    assert world.condition("Complete")["reason"] == "RoundsCompleted"
    assert world.condition("Suspended")["status"] == "False"
    assert world.look().status is None, "nothing changes any more"
    before = world.status
    suspend(world, False)
    decision = world.look()
    assert decision.status and decision.events == (), "it speaks of the spec as it is now, or nobody could wait for it"
    assert {condition["observedGeneration"] for condition in world.status["conditions"]} == {3}
    assert (world.status["observedGeneration"], world.status["phase"]) == (3, before["phase"])
    assert world.look().status is None


def test_once_on_its_way_it_stands_still_before_it_goes_on() -> None:
    world = running()
    world.lingering = {COORDINATOR}
    suspend(world)
    world.look()
    suspend(world, False)
    assert world.look(1).actions == ()
    assert state(world) == ("False", "Suspending")
    world.pods.pop(COORDINATOR)
    world.lingering = set()
    world.settle()
    assert [reason for _, reason in world.told if reason in ("Suspending", "Suspended", "Resumed")] == [
        "Suspending",
        "Suspended",
        "Resumed",
    ]
    assert set(world.pods) == {*LEARNERS, COORDINATOR}


def test_it_goes_on_with_the_same_round_and_nothing_held_against_its_pods() -> None:
    world = suspended()
    claim = world.children["volume_claims"][COORDINATOR]["metadata"]["uid"]
    assert world.status["round"]["summary"] == "7/20" and world.status["learners"]["summary"] == "0/2"
    assert world.status["coordinator"] == {"uid": "", "restarts": 0, "attempts": 0}
    world.now += timedelta(hours=5)
    suspend(world, False)
    world.settle()
    assert set(world.pods) == {*LEARNERS, COORDINATOR}
    assert world.children["volume_claims"][COORDINATOR]["metadata"]["uid"] == claim
    assert world.status["round"]["current"] == 7
    assert ("Warning", "Replaced") not in world.told
    assert world.status["coordinator"]["attempts"] == 0
    world.run_all()
    world.progress = progress(current=7)
    world.settle()
    assert world.status["phase"] == "Running"
    assert world.look(5).status is None


def test_pods_that_come_while_it_stands_still_go_again() -> None:
    world = suspended()
    world.pods["digits-learner-0"] = {
        "kind": "Pod",
        "metadata": {"name": "digits-learner-0", "uid": "late"},
        "status": {"phase": "Running"},
    }
    decision = world.look()
    assert [type(action) for action in decision.actions] == [Delete]
    assert state(world) == ("False", "Suspending"), "no lie while it is there"
    world.settle()
    assert state(world)[0] == "True"


def test_the_active_deadline_stands_still_too() -> None:
    world = running(policy={"activeDeadlineSeconds": 100})
    world.look(40)
    suspend(world)
    world.settle()
    world.progress = None
    assert world.look(1000).requeue_after is None
    suspend(world, False)
    world.settle()
    assert world.status["suspendedSeconds"] == 1000
    world.run_all()
    world.progress = progress()
    assert world.look(59).requeue_after == 1
    assert world.status["phase"] == "Running"
    suspend(world)
    world.settle()
    world.now += timedelta(seconds=500)
    suspend(world, False)
    world.settle()
    assert world.status["suspendedSeconds"] == 1500
    world.look(1)
    assert world.condition("Failed")["reason"] == "ActiveDeadlineExceeded"


def test_the_pre_running_deadline_begins_anew() -> None:
    world = suspended(policy={"preRunningDeadlineSeconds": 100})
    world.now += timedelta(seconds=5000)
    suspend(world, False)
    world.settle()
    assert world.status["phase"] == "Pending"
    assert world.look(99).requeue_after == 1
    world.look(1)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


def test_a_volume_that_goes_meanwhile_is_told_at_once() -> None:
    world = suspended()
    world.children["volume_claims"].clear()
    world.settle()
    failed = world.condition("Failed")
    assert failed["reason"] == "VolumeLost"
    assert failed["message"] == (
        "the volume claim digits-coordinator is gone, or is not this task's any more, "
        "and with it all that was decided up to round 7"
    )
    made = world.made
    suspend(world, False)
    world.settle()
    assert world.made == made, "nothing begins again from nothing"


@pytest.mark.parametrize("image", ["new:2", None])
def test_learners_come_back_as_the_spec_says_by_then(image: str | None) -> None:
    world = suspended(learners={"count": 2, "image": "old:1"})
    world.task["spec"]["learners"] |= {"gpus": {"count": 1}}
    if image:
        world.task["spec"]["learners"]["image"] = image
    else:
        del world.task["spec"]["learners"]["image"]
    suspend(world, False)
    world.settle()
    (container,) = world.pods["digits-learner-1"]["spec"]["containers"]
    assert container["image"] == (image or "learner:1")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
