"""Modules that learners import: missing they are waited for, broken they end the task at once, with their words."""

from __future__ import annotations

import pytest

from collective_learner import imports
from collective_operator import pod_troubles
from collective_operator.cluster.protocol import named_config_map
from collective_operator.conditions import MESSAGE_LIMIT

from .world import World, progress, running

COORDINATOR = "digits-coordinator"
WITH_CODE = {"learners": {"count": 2, "codeFrom": {"configMapRef": {"name": "my-models"}}}}
TOLD = """2026-01-01 INFO collective_learner.imports: imported first
Error: --import second failed: ValueError: no moon
  File "/opt/collective/code/second.py", line 3, in <module>
    raise ValueError("no moon")
"""
CAUSE = (
    "digits-learner-1: --import second failed: ValueError: no moon\n"
    '  File "/opt/collective/code/second.py", line 3, in <module>\n'
    '    raise ValueError("no moon")'
)


def test_both_sides_know_the_status() -> None:
    assert pod_troubles.IMPORT_FAILED == imports.IMPORT_FAILED


@pytest.mark.parametrize("restarting", [False, True])
def test_a_broken_import_ends_the_task_at_once_with_its_words(restarting: bool) -> None:
    world = World()
    world.settle()
    world.run("digits-learner-0")
    world.run(COORDINATOR)
    world.progress = progress("Waiting", 0)
    world.settle()
    world.end("digits-learner-1", 78, TOLD, restarting=restarting)
    world.settle()
    failed = world.condition("Failed")
    assert (failed["status"], failed["reason"], failed["message"]) == ("True", "ImportFailed", CAUSE)
    assert world.status["learnerStatuses"][1]["state"] == "ImportFailed"
    assert world.status["phase"] == "Failed"
    assert world.pods == {}, "nothing goes on, the coordinator neither, which has not spoken"
    assert world.told.count(("Warning", "ImportFailed")) == 1


def test_a_long_traceback_keeps_its_beginning() -> None:
    world = World()
    world.settle()
    world.end("digits-learner-1", 78, "Error: --import m failed: E: first" + "\n  x" * 900)
    world.settle()
    message = world.condition("Failed")["message"]
    assert message.startswith("digits-learner-1: --import m failed: E: first\n  x")
    assert len(message) == MESSAGE_LIMIT


@pytest.mark.parametrize(
    ("said", "told"),
    [("", "a module cannot be imported, exit code 78"), ("plain words", "plain words"), ("Error: a\nError: b", "b")],
)
def test_whatever_was_said_is_told(said: str, told: str) -> None:
    world = World()
    world.settle()
    world.end("digits-learner-0", 78, said)
    world.settle()
    assert world.condition("Failed")["message"] == f"digits-learner-0: {told}"


def test_another_status_is_a_crash() -> None:
    world = World()
    world.settle()
    world.end("digits-learner-1", 1, TOLD)
    world.settle()
    assert world.status["phase"] != "Failed"
    assert world.condition("LearnersReady")["reason"] == "Crashing"


def test_rounds_that_run_go_on_without_a_learner_that_comes_back_broken() -> None:
    world = running(policy={"minLearners": 1})
    world.end("digits-learner-1", 78, TOLD)
    world.settle()
    assert world.status["phase"] == "Running"
    assert world.condition("LearnersReady")["reason"] == "QuorumReady"
    assert "no moon" in world.condition("LearnersReady")["message"]
    world.progress = progress("Waiting", 1)  # until the coordinator has too few
    world.settle()
    assert world.condition("Failed")["reason"] == "ImportFailed"


def test_a_learner_that_got_ready_in_the_end_is_fine() -> None:
    world = running()
    world.end("digits-learner-1", 78, TOLD, restarting=True)
    status = world.pods["digits-learner-1"]["status"]
    status["conditions"] = [{"type": "Ready", "status": "True"}]
    world.progress = progress("Waiting", 0)
    world.settle()
    assert world.status["phase"] == "Starting"


def test_a_missing_config_map_is_told_and_waited_for() -> None:
    world = World(**WITH_CODE)
    world.absent = frozenset({"my-models"})
    world.settle()
    assert set(world.pods) == {COORDINATOR}, "a learner would hang, and say so nowhere"
    found = world.condition("LearnersReady")
    words = "there is no ConfigMap my-models, which spec.learners.codeFrom names"
    assert (found["status"], found["reason"], found["message"]) == ("False", "CodeMissing", f"0 of 2 ready; {words}")
    assert [learner["state"] for learner in world.status["learnerStatuses"]] == ["CodeMissing"] * 2
    assert world.look().requeue_after <= 15, "nobody tells when it comes"
    assert ("Warning", "CodeMissing") in world.told
    world.absent = frozenset()
    world.settle()
    assert set(world.pods) == {COORDINATOR, "digits-learner-0", "digits-learner-1"}
    assert world.condition("LearnersReady")["reason"] == "Starting"


def test_a_missing_config_map_ends_within_the_deadline() -> None:
    world = World(**WITH_CODE, policy={"preRunningDeadlineSeconds": 60})
    world.absent = frozenset({"my-models"})
    world.settle()
    world.look(61)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded"
    assert "there is no ConfigMap my-models" in world.condition("Failed")["message"]


def test_a_config_map_that_goes_meanwhile_is_no_trouble_of_learners_that_run() -> None:
    world = running(**WITH_CODE)
    world.absent = frozenset({"my-models"})
    world.settle()
    assert world.condition("LearnersReady")["reason"] == "AllReady"
    assert world.status["learners"]["failed"] == 0
    world.pods["digits-learner-1"]["status"] = {"phase": "Pending"}  # made a moment ago, and waits for its volume
    world.settle()
    assert world.status["learnerStatuses"][1]["state"] == "CodeMissing"


@pytest.mark.parametrize(
    "spec",
    [
        None,
        3,
        {},
        {"learners": 1},
        {"learners": {"codeFrom": None}},
        {"learners": {"codeFrom": {"configMapRef": {"name": 3}}}},
    ],
)
def test_a_task_that_nobody_checked_names_no_config_map(spec: object) -> None:
    assert named_config_map({"spec": spec}) is None
