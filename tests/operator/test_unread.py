"""Tasks whose spec this operator refuses, or cannot read any more: what is told of them, how they end, what is left."""

from __future__ import annotations

import pytest

from .world import World, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}


def test_a_refused_task_tells_all_conditions_and_one_event() -> None:
    world = World(policy={"minLearners": 9}, suspend=True)
    world.look()
    assert [(found["type"], found["status"]) for found in world.status["conditions"]] == [
        ("Accepted", "False"),
        ("LearnersReady", "False"),
        ("CoordinatorReady", "False"),
        ("Progressing", "False"),
        ("Suspended", "False"),
        ("Complete", "False"),
        ("Failed", "True"),
    ]
    assert world.told == [("Warning", "InvalidSpec")]
    too_old = running()
    too_old.task["spec"]["newThing"] = 1
    too_old.look()
    assert too_old.condition("Progressing")["status"] == "Unknown", "nobody looks"
    assert too_old.condition("LearnersReady")["status"] == "True"
    assert too_old.told.count(("Warning", "InvalidSpec")) == 1


def test_a_refused_task_that_is_mended_late_has_all_of_its_time() -> None:
    world = World(policy={"preRunningDeadlineSeconds": 60})
    world.task["spec"]["rounds"] = 0
    world.settle()
    assert world.status["reason"] == "InvalidSpec"
    world.task["spec"]["rounds"] = 3
    world.spend(3600)
    assert world.status["phase"] == "Pending"
    world.spend(61)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


def unread(**policy: object) -> World:
    """A task that runs, and whose definition is newer than this operator."""
    world = running(policy=policy)
    world.progress = progress(current=5)
    world.settle()
    world.task["spec"]["newThing"] = True
    world.task["spec"]["policy"]["newerThing"] = 1
    world.task["metadata"]["generation"] += 1
    world.settle()
    assert world.condition("Accepted")["reason"] == "InvalidSpec"
    assert len(world.pods) == 3
    return world


def test_a_task_that_cannot_be_read_is_seen_to_end_and_holds_nothing_then() -> None:
    world = unread()
    world.progress = progress("Complete", 20, reason="RoundsCompleted", message="done", result={"model": "m"})
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Complete", "RoundsCompleted")
    assert world.condition("Accepted")["status"] == "False", "that is as it was"
    assert world.status["result"]["model"] == "m"
    assert world.status["learners"] == {"desired": 2, "ready": 0, "failed": 0, "summary": "0/2"}
    assert set(world.pods) == {COORDINATOR}, "it may be on its way out"
    world.progress = None
    world.spend(60)
    assert world.pods == {}
    assert ("Normal", "RoundsCompleted") in world.told and not world.deleted
    assert world.look(5).status is None


@pytest.mark.parametrize(("policy", "left"), [({"cleanPods": "None"}, LEARNERS), ({"cleanPods": "Newer"}, LEARNERS)])
def test_of_a_task_that_cannot_be_read_stays_what_is_to_stay(policy: dict[str, str], left: set[str]) -> None:
    world = unread()
    world.task["spec"]["policy"] |= policy
    world.progress = progress("Failed", 6, reason="StorageFailed", message="full")
    world.settle()
    world.progress = None
    world.spend(60)
    assert set(world.pods) == left


def test_a_task_that_cannot_be_read_is_deleted_in_its_time() -> None:
    world = unread(ttlSecondsAfterFinished=100)
    world.progress = progress("Complete", 20, reason="RoundsCompleted", message="done")
    world.settle()
    world.look(101)
    assert world.deleted


def test_a_task_that_was_not_begun_because_it_cannot_be_read_stays() -> None:
    world = World(newThing=1, policy={"ttlSecondsAfterFinished": 0})
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "InvalidSpec")
    decision = world.look(10_000)
    assert (decision.actions, decision.status, decision.requeue_after) == ((), None, None)
    del world.task["spec"]["newThing"]
    world.settle()
    assert world.status["phase"] == "Pending" and world.pods, "an operator that can read it begins it"


def test_a_task_that_cannot_be_read_and_is_kept_after_its_deletion_holds_nothing() -> None:
    world = unread()
    world.task["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a"]}
    world.settle()
    assert world.pods == {} and world.status["reason"] == "Aborted"


def test_a_task_that_cannot_be_read_can_be_given_up() -> None:
    world = unread()
    world.task["metadata"]["annotations"] = {"collectivelearning.dev/abort": "enough"}
    world.settle()
    assert (world.condition("Failed")["reason"], world.condition("Failed")["message"]) == ("Aborted", "enough")
    assert world.pods == {}
    del world.task["spec"]["newThing"], world.task["spec"]["policy"]["newerThing"]
    world.settle()
    assert world.status["phase"] == "Failed" and world.pods == {}, "it is over, whoever reads it"
