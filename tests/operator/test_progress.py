"""What a coordinator says, and what becomes of it: verdicts, nonsense, more than a status can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .world import World, progress, running

COORDINATOR = "digits-coordinator"


@pytest.mark.parametrize("by", ["status", "termination message", "last termination message"])
@pytest.mark.parametrize(("phase", "reason"), [("Complete", "Completed"), ("Failed", "SetupRefused")])
def test_a_verdict_ends_the_task(by: str, phase: str, reason: str) -> None:
    world = running()
    formats = [{"name": "safetensors", "file": "model.safetensors"}, {"name": "onnx", "message": "x" * 999}]
    result = {"model": "model.safetensors", "testScore": 0.9, "formats": formats, "location": "s3://m/digits"}
    verdict = progress(phase, 20, reason=reason, message="so it is", result=result)
    if by == "status":
        world.progress = verdict
    else:
        ended = {"terminated": {"exitCode": 0, "message": json.dumps(verdict)}}
        last = by.startswith("last")
        world.progress = None
        world.pods[COORDINATOR]["status"] = {
            "phase": "Running" if last else "Succeeded",
            "containerStatuses": [
                {"restartCount": 0, "state": {"running": {}} if last else ended, "lastState": ended if last else {}}
            ],
        }
    told = world.look(10)
    assert told.actions == () and told.requeue_after == 0, "how it ended is kept before anything of it goes"
    world.settle()
    assert world.status["phase"] == phase
    assert (world.condition(phase)["reason"], world.condition(phase)["message"]) == (reason, "so it is")
    assert world.status["completionTime"] == "2026-01-01T00:00:10Z"
    assert world.status["round"]["summary"] == "20/20"
    told, cut = world.status["result"]["formats"]
    assert told == formats[0] and world.status["result"]["location"] == "s3://m/digits"
    assert (cut["name"], len(cut["message"])) == ("onnx", 512)
    assert set(world.pods) == {COORDINATOR}
    assert world.status["learners"]["ready"] == 0
    before = dict(world.task["status"])
    world.progress = None
    world.look(1000)
    assert world.task["status"] == before
    held = world.pods.get(COORDINATOR, {}).get("status", {}).get("phase")
    assert held in (None, "Succeeded"), "a coordinator that does not leave is deleted"


def ended_with(words: str, *, code: int = 0) -> World:
    """Have the coordinator of a task that runs end with these last words."""
    world = running()
    ended = {"terminated": {"exitCode": code, "message": words}}
    world.progress = None
    world.pods[COORDINATOR]["status"] = {
        "phase": "Succeeded" if code == 0 else "Running",
        "containerStatuses": [{"restartCount": 0, "state": ended}],
    }
    world.look()
    return world


def test_a_verdict_that_a_kubelet_has_cut_ends_the_task() -> None:
    """It leaves 12 KiB to all containers of a pod together, so to each of many less than the verdict takes."""
    said = progress("Complete", 20, reason="RoundsCompleted", message="so it is", result={"model": "m", "rounds": 20})
    words = json.dumps(said, separators=(",", ":"))
    least = words.index(',"latest"') + 1
    for cut in range(len(words)):
        world = ended_with(words[:cut])
        assert world.status["phase"] == ("Complete" if cut >= least else "Starting"), words[:cut]
        assert world.status["round"]["current"] in (20, 1)
        if cut >= least:
            assert world.condition("Complete")["reason"] == "RoundsCompleted"
            assert world.status["round"]["summary"] == "20/20"


def test_a_coordinator_that_ends_without_a_verdict_is_not_said_to_start() -> None:
    world = ended_with("{}")
    ready = world.condition("CoordinatorReady")
    assert (ready["reason"], ready["message"]) == ("Crashing", f"{COORDINATOR}: ended without a verdict")


@pytest.mark.parametrize(
    ("words", "code"), [('{"uid":"u","phase":"Complete","round":{},"x', 1), ("{,", 0), ("{" * 999, 0)]
)
def test_the_end_of_a_log_is_no_verdict(words: str, code: int) -> None:
    assert ended_with(words, code=code).status["phase"] == "Starting"


def test_a_verdict_of_somebody_else_is_none() -> None:
    world = running()
    world.progress = {**progress("Complete", 20), "uid": "another"}
    world.look()
    assert world.status["phase"] == "Running"


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        "x",
        3,
        {"phase": "Complete"},
        {"uid": "task-uid", "phase": "Dancing"},
        {"uid": "task-uid", "phase": "Running", "round": {"current": -1}},
        {"uid": "task-uid", "phase": "Running", "learners": 7},
        {"uid": "task-uid", "phase": "Complete", "round": None},
        {"uid": "task-uid", "phase": "Running", "latest": {"round": 1, "testScore": float("nan")}},
    ],
)
def test_nonsense_is_no_progress(said: Any) -> None:
    world = running()
    world.progress = said
    assert world.look().status is None


def test_long_texts_and_lists_are_cut() -> None:
    world = running()
    world.progress = progress(
        current=2,
        latest={"round": 2, "proposer": "p" * 9999, "accepted": True},
        learners=[{"name": f"learner-{index}", "state": "Ready", "message": "m" * 9999} for index in range(9999)],
    )
    world.look()
    assert len(json.dumps(world.status)) < 10_000
    world.progress = progress("Failed", reason="no word!", message="m" * 99999)
    world.look()
    assert world.condition("Failed")["reason"] == "CoordinatorFailed"
    assert len(world.condition("Failed")["message"]) <= 1000


def test_the_status_tells_what_a_learners_data_has_spent_of_its_privacy() -> None:
    world = World()
    world.settle()
    for name in ("digits-learner-0", "digits-learner-1", COORDINATOR):
        world.run(name)
    privacy = {"targetEpsilon": 4.0, "consumedEpsilon": 3.98768, "targetDelta": 1e-5, "spent": "its budget is spent"}
    world.progress = progress(
        learners=[
            {"name": "learner-0", "state": "Ready", "privacy": privacy, "message": "its budget is spent"},
            {"name": "learner-1", "state": "Ready"},
        ]
    )
    world.settle()
    spent, other = world.status["learnerStatuses"][:2]
    assert spent["privacy"] == {"targetEpsilon": 4.0, "consumedEpsilon": 3.9877}
    assert spent["message"] == "its budget is spent" and "privacy" not in other
    world.progress = None  # one answer that did not come
    world.settle()
    assert world.status["learnerStatuses"][0]["privacy"] == spent["privacy"]
