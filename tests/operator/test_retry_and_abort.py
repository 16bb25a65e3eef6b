"""What people ask of a task by annotation: that it ends now, and that a failed one is tried again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collective_operator.api.annotations import ABORT, RETRY
from collective_operator.cluster.memory import kept
from collective_operator.commands.render import waits_for

from .world import World, progress, running

COORDINATOR = "digits-coordinator"


def annotate(world: World, **annotations: str | None) -> None:
    """Annotate, by the last part of a name; None takes an annotation away."""
    known = world.task["metadata"].setdefault("annotations", {})
    for name, value in annotations.items():
        known[f"collectivelearning.dev/{name}"] = value
        if value is None:
            del known[f"collectivelearning.dev/{name}"]


def failed(**members: Any) -> World:
    """A task that failed in round 7, and whose coordinator has left with its verdict."""
    world = running()
    world.progress = progress(current=7, learners=[{"name": "learner-1", "lastScore": 0.5}])
    world.settle()
    said = progress("Failed", 7, reason="BelowQuorum", message="learner-0 is missing", **members)
    world.end(COORDINATOR, 0, json.dumps(said))
    world.pods[COORDINATOR]["status"]["phase"] = "Succeeded"
    world.progress = None
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "BelowQuorum")
    return world


def retry(world: World) -> None:
    annotate(world, retry=world.status["completionTime"])


@pytest.mark.parametrize(
    ("value", "message"), [("true", "somebody has ended the task"), ("wrong data", "wrong data"), (" x ", "x")]
)
def test_an_aborted_task_fails_and_frees_what_it_holds(value: str, message: str) -> None:
    world = running()
    annotate(world, abort=value)
    world.settle()
    condition = world.condition("Failed")
    assert (condition["reason"], condition["message"]) == ("Aborted", message)
    assert world.pods == {}, "the coordinator has not spoken, and must not drive on"
    assert ("Warning", "Aborted") in world.told


@pytest.mark.parametrize("value", ["false", "", "  "])
def test_what_aborts_nothing(value: str) -> None:
    world = running()
    annotate(world, abort=value)
    world.settle()
    assert world.status["phase"] == "Running"


def test_a_verdict_is_stronger_than_an_abort() -> None:
    world = running()
    world.progress = progress("Complete", 20, reason="RoundsCompleted")
    annotate(world, abort="true")
    world.settle()
    assert world.status["phase"] == "Complete"


@pytest.mark.parametrize("started", [True, False])
def test_a_suspended_task_can_be_aborted(started: bool) -> None:
    world = running() if started else World()
    world.task["spec"]["suspend"] = True
    world.progress = None
    world.settle()
    assert world.status["phase"] == "Suspended"
    annotate(world, abort="true")
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "Aborted")


def test_a_retried_task_goes_on_after_its_last_round() -> None:
    world = failed()
    retry(world)
    world.now = world.now.replace(year=world.now.year + 1)
    world.lingering = {COORDINATOR}
    world.settle()
    assert world.status["phase"] == "Failed", "its last word is still there"
    del world.pods[COORDINATOR]
    world.lingering = set()
    world.settle()
    assert (world.status["phase"], world.status["round"]["summary"]) == ("Pending", "7/20")
    assert "completionTime" not in world.status
    assert world.condition("Failed")["status"] == "False"
    assert ("Normal", "Retried") in world.told
    assert {reason for _, reason in world.told}.isdisjoint({"Replaced", "Reconfigured"}), "as many learners as before"
    assert set(world.pods) == {COORDINATOR, "digits-learner-0", "digits-learner-1"}
    config = json.loads(world.children["config_maps"][COORDINATOR]["data"]["coordinator.json"])
    assert config["task"]["retry"] == world.task["metadata"]["annotations"][RETRY]
    assert world.status["learnerStatuses"][1]["lastScore"] == 0.5
    world.run_all()
    world.progress = progress(current=8)
    world.settle()
    assert world.status["phase"] == "Running"


def test_a_retry_is_good_for_one_failure() -> None:
    world = failed()
    retry(world)
    world.settle()
    world.run_all()
    world.now = world.now.replace(year=world.now.year + 1)
    world.progress = progress("Failed", 8, reason="SetupRefused")
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "SetupRefused")
    first = world.task["metadata"]["annotations"][RETRY]
    retry(world)
    world.progress = None
    world.settle()
    assert world.status["phase"] == "Pending" and world.task["metadata"]["annotations"][RETRY] != first


@pytest.mark.parametrize("value", ["2020-01-01T00:00:00Z", "now", "true", ""])
def test_another_time_retries_nothing(value: str) -> None:
    world = failed()
    before = json.dumps(world.status)
    annotate(world, retry=value)
    world.settle()
    assert json.dumps(world.status) == before


def test_what_is_complete_is_not_tried_again() -> None:
    world = running()
    world.progress = progress("Complete", 20, reason="RoundsCompleted")
    world.settle()
    retry(world)
    world.settle()
    assert world.status["phase"] == "Complete"


def test_crashes_are_forgiven() -> None:
    world = running(policy={"backoff": {"limit": 0}, "minLearners": 2})
    world.end("digits-learner-0", 1, "no memory", restarting=True)
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "BackoffLimitExceeded")
    retry(world)
    world.progress = None
    world.settle()
    assert world.status["phase"] == "Pending"
    assert "failures" not in world.status["learnerStatuses"][0]


def test_without_its_volume_it_fails_again_and_stays_failed() -> None:
    world = failed()
    world.children["volume_claims"].clear()
    retry(world)
    world.now = world.now.replace(year=world.now.year + 1)
    world.settle()
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "VolumeLost")
    assert world.children["volume_claims"] == {}, "an empty one would begin again, and nobody would know"


def test_an_aborted_task_is_retried_once_nobody_aborts_it() -> None:
    world = running()
    annotate(world, abort="true")
    world.settle()
    retry(world)
    annotate(world, abort=None)
    world.progress = None
    world.settle()
    assert world.status["phase"] == "Pending"


def test_retried_while_suspended_it_stands_still_first() -> None:
    world = failed()
    world.task["spec"]["suspend"] = True
    retry(world)
    world.settle()
    assert (world.status["phase"], world.pods) == ("Suspended", {}), "now its image may be mended"
    decided = world.status["round"]["summary"].replace("/", " of ")
    assert world.condition("Suspended")["message"] == f"none of its pods is there; {decided} rounds are decided"


def test_learners_that_nobody_hears_of_keep_no_task_from_being_tried_again() -> None:
    world = running(learners={"count": 3, "location": "x"}, policy={"minLearners": 2})
    lost = "digits-learner-1"
    world.run(lost, restarts=9)
    world.lingering = {lost, COORDINATOR}
    annotate(world, abort="its node is gone")
    world.settle()
    assert set(world.pods) == {lost, COORDINATOR}
    annotate(world, abort=None)
    retry(world)
    assert world.look().requeue_after == 90, "a kubelet may only be slow"
    world.spend(90)
    assert world.status["phase"] == "Failed", "a coordinator's last word would end it once more"
    del world.pods[COORDINATOR]
    world.progress = None
    world.settle()
    assert world.status["phase"] == "Pending"
    assert set(world.pods) == {lost, "digits-learner-0", "digits-learner-2", COORDINATOR}
    told = world.status["learnerStatuses"][1]
    assert (told["state"], "failures" in told) == ("PodLost", False), "its crashes were of the try before"


def test_a_coordinator_that_nobody_hears_of_is_waited_for_and_told_once() -> None:
    world = running()
    pod = world.pods[COORDINATOR]
    pod["spec"]["nodeName"] = "n1"
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "NodeStatusUnknown"}]
    world.progress = None
    world.lingering = {COORDINATOR}
    annotate(world, abort="its node is gone")
    world.settle()
    annotate(world, abort=None)
    retry(world)
    assert (world.look().status, world.look().requeue_after) == (None, 90), "a kubelet may only be slow"
    world.told.clear()
    world.spend(90)
    why = f"{COORDINATOR}: is being deleted: its node n1 does not answer"
    told = f"still there: {why}; the task is tried again when it is gone"
    ready = world.condition("CoordinatorReady")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "Finished", told)
    assert waits_for(world.task) == f"its pods to go; {told}"
    assert (world.status["phase"], world.status["reason"], world.told) == ("Failed", "Aborted", [])
    decision = world.look(10_000)
    assert (decision.actions, decision.status, decision.requeue_after) == ((), None, None)
    annotate(world, retry=None)
    world.settle()
    assert world.condition("CoordinatorReady")["message"] == "", "nobody waits for it any more"
    assert waits_for(world.task) == "nothing: its node is gone"
    retry(world)
    world.settle()
    assert set(world.pods) == {COORDINATOR}, "never two, and no learner that would wait for it"
    del world.pods[COORDINATOR]
    world.settle()
    assert (world.status["phase"], world.condition("CoordinatorReady")["reason"]) == ("Pending", "Starting")


def test_the_memory_keeps_what_is_asked_and_no_more() -> None:
    task = running().task
    asked = {ABORT: "true", RETRY: "2026-01-01T00:00:00Z"}
    task["metadata"]["annotations"] = {**asked, "kubectl.kubernetes.io/last-applied-configuration": "x" * 1000}
    assert kept("CollectiveTask", task)["metadata"]["annotations"] == asked
