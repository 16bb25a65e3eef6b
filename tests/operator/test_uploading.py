"""A task whose rounds are over, and whose result is on its way: nothing holds a GPU for it."""

from __future__ import annotations

from typing import Any

import pytest

from collective_operator.api.annotations import RETRY

from .world import World, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}
ON_ITS_WAY = progress(current=20, reason="UploadingResult", message="Bringing the result to s3://models/digits")


def uploading(**policy: Any) -> World:
    world = running(policy=policy)
    world.progress = ON_ITS_WAY
    world.settle()
    return world


@pytest.mark.parametrize("policy", ["Running", "All", "None"])
def test_learners_go_as_the_policy_says(policy: str) -> None:
    world = uploading(cleanPods=policy)
    assert set(world.pods) - {COORDINATOR} == (LEARNERS if policy == "None" else set())
    assert (world.status["phase"], world.status["reason"]) == ("Running", "UploadingResult")
    assert world.condition("Progressing")["message"] == "Bringing the result to s3://models/digits"
    assert (world.condition("LearnersReady")["status"], world.condition("LearnersReady")["reason"]) == (
        "False",
        "Finished",
    )
    assert {learner["state"] for learner in world.status["learnerStatuses"]} == {"Finished"}
    assert world.status["learners"] == {"desired": 2, "ready": 0, "failed": 0, "summary": "0/2"}
    assert world.told.count(("Normal", "UploadingResult")) == 1
    for _ in range(3):
        decision = world.look(1000)
        assert (decision.actions, decision.status) == ((), None), "however long it takes"
    world.progress = None
    assert world.look(5).status is None, "one answer that did not come is no news"
    world.progress = progress("Complete", 20, reason="RoundsCompleted", message="done")
    world.settle()
    assert world.condition("Complete")["status"] == "True"
    assert {learner["state"] for learner in world.status["learnerStatuses"]} == {"Finished"}


def test_kueue_gets_all_of_its_pods_back_together() -> None:
    world = running(queueName="gpus")
    world.progress = ON_ITS_WAY
    world.settle()
    assert set(world.pods) == {COORDINATOR, *LEARNERS}
    world.progress = progress("Complete", 20, reason="RoundsCompleted", message="done")
    world.settle()
    assert set(world.pods) == {COORDINATOR}


def test_what_becomes_of_learners_that_go_is_held_against_nobody() -> None:
    world = running(policy={"backoff": {"limit": 0}})
    world.lingering = set(LEARNERS)
    world.progress = ON_ITS_WAY
    world.settle()
    for name in LEARNERS:
        world.end(name, 143)
    world.settle()
    assert world.status["phase"] == "Running"
    assert all("failures" not in learner for learner in world.status["learnerStatuses"])
    world.progress = progress("Failed", 20, reason="UploadFailed", message="the bucket is gone")
    world.settle()
    assert world.condition("Failed")["reason"] == "UploadFailed"
    assert {learner["state"] for learner in world.status["learnerStatuses"]} == {"Finished"}


def test_the_log_of_one_that_has_ended_can_be_read() -> None:
    world = running()
    world.pods["digits-learner-0"]["status"]["phase"] = "Succeeded"
    world.progress = ON_ITS_WAY
    world.settle()
    assert set(world.pods) == {COORDINATOR, "digits-learner-0"}


def test_a_coordinator_that_is_lost_then_needs_no_learners() -> None:
    world = uploading()
    del world.pods[COORDINATOR]
    world.progress = None
    world.settle()
    assert set(world.pods) == {COORDINATOR}
    assert (world.condition("Progressing")["status"], world.condition("Progressing")["reason"]) == (
        "False",
        "WaitingForCoordinator",
    )
    world.run(COORDINATOR)
    world.progress = progress("Waiting", 0, reason="Starting")
    world.settle()
    assert set(world.pods) == {COORDINATOR}, "it finds out first how far the task is"
    assert world.condition("Progressing")["reason"] == "WaitingForCoordinator"
    world.progress = ON_ITS_WAY
    world.settle()
    assert (set(world.pods), world.status["phase"]) == ({COORDINATOR}, "Running")


@pytest.mark.parametrize("said", [progress("Waiting", 0, reason="WaitingForLearners"), progress(current=19)])
def test_learners_that_are_needed_after_all_come_back(said: dict[str, Any]) -> None:
    world = uploading()
    world.progress = said
    world.settle()
    assert set(world.pods) == {COORDINATOR, *LEARNERS}
    assert world.condition("LearnersReady")["reason"] == "Starting"


def test_who_suspends_or_retries_it_gets_all_pods_back() -> None:
    world = uploading()
    world.task["spec"]["suspend"] = True
    world.progress = None
    world.settle()
    assert (set(world.pods), world.status["phase"]) == (set(), "Suspended")
    world.task["spec"]["suspend"] = False
    world.settle()
    assert set(world.pods) == {COORDINATOR, *LEARNERS}
    failed = uploading()
    failed.progress = progress("Failed", 20, reason="UploadFailed", message="the bucket is gone")
    failed.settle()
    failed.task["metadata"]["annotations"] = {RETRY: failed.status["completionTime"]}
    failed.progress = None
    failed.settle()
    assert set(failed.pods) == {COORDINATOR, *LEARNERS}


def test_learners_that_export_the_model_stay() -> None:
    world = running()
    world.progress = progress(current=20, reason="ExportingModel", message="Writing the model in other formats")
    world.settle()
    assert set(world.pods) == {COORDINATOR, *LEARNERS}
    assert (world.status["phase"], world.status["reason"]) == ("Running", "ExportingModel")
    assert world.condition("LearnersReady")["status"] == "True"
