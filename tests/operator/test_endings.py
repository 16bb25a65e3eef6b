"""How tasks end, whatever dies, and what is left of them then."""

from __future__ import annotations

from typing import Any

import pytest

from collective_operator.wording import stamp

from .world import World, progress, running

COORDINATOR = "digits-coordinator"
LEARNERS = {"digits-learner-0", "digits-learner-1"}
PULL = "digits-learner-1: ImagePullBackOff: not found"


def complete(**policy: Any) -> World:
    """A task whose coordinator has given its verdict, and is still there."""
    world = running(policy=policy)
    world.progress = progress("Complete", 20, reason="RoundsCompleted", message="done")
    world.settle()
    assert world.status["phase"] == "Complete"
    return world


def leave(world: World) -> None:
    world.progress = None
    if COORDINATOR in world.pods:
        world.pods[COORDINATOR]["status"]["phase"] = "Succeeded"
    world.settle()


@pytest.mark.parametrize(
    ("policy", "at_once", "later"),
    [
        ({}, {COORDINATOR}, {COORDINATOR}),
        ({"cleanPods": "Running"}, {COORDINATOR}, {COORDINATOR}),
        ({"cleanPods": "All"}, {COORDINATOR}, set()),
        ({"cleanPods": "None"}, {COORDINATOR, *LEARNERS}, {COORDINATOR, *LEARNERS}),
    ],
)
def test_what_stays(policy: dict[str, str], at_once: set[str], later: set[str]) -> None:
    world = complete(**policy)
    assert set(world.pods) == at_once, "a coordinator that has spoken may leave by itself"
    leave(world)
    assert set(world.pods) == later
    assert world.look(100_000).actions == ()


@pytest.mark.parametrize("policy", ["Running", "All", "None"])
def test_rounds_end_with_the_task_in_any_case(policy: str) -> None:
    world = complete(cleanPods=policy)
    world.look(60)
    assert COORDINATOR not in world.pods, "it did not leave by itself"
    late = running(policy={"activeDeadlineSeconds": 9, "cleanPods": policy})
    late.spend(9)
    assert set(late.pods) == (LEARNERS if policy == "None" else set()), "it has not even spoken"


def test_what_a_clock_that_was_ahead_has_written_delays_no_end() -> None:
    begun = World(policy={"preRunningDeadlineSeconds": 300})
    begun.look(86_400)
    begun.look(1)
    begun.look(-86_400)  # the machine's clock was set, and the operator started anew
    assert begun.status["startTime"] == begun.status["conditions"][0]["lastTransitionTime"] == stamp(begun.now)
    assert begun.look(100).status is None
    begun.spend(200)
    assert begun.status["reason"] == "PreRunningDeadlineExceeded"

    ended = complete()
    ended.look(-86_400)
    assert COORDINATOR not in ended.pods, "it has spoken, and is not waited for"


def test_a_coordinator_on_a_node_that_does_not_answer_is_told_and_waited_for_within_a_bound() -> None:
    world = running(policy={"preRunningDeadlineSeconds": 300})
    pod, made = world.pods[COORDINATOR], world.made
    pod["spec"]["nodeName"] = "n1"
    pod["metadata"]["deletionTimestamp"] = world.now.isoformat()
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "NodeStatusUnknown"}]
    world.progress = None
    world.spend(5)
    told = f"{COORDINATOR}: is being deleted: its node n1 does not answer"
    ready = world.condition("CoordinatorReady")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "PodLost", told)
    assert world.condition("Progressing")["reason"] == "WaitingForCoordinator"
    assert world.look(100).status is None
    world.spend(200)
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "PreRunningDeadlineExceeded")
    assert world.condition("Failed")["message"].endswith(f"coordinator: {told}")
    assert (set(world.pods), world.made) == ({COORDINATOR}, made), "no second one, and nothing is held for it"


def test_a_task_that_took_too_long_tells_what_it_waited_for() -> None:
    world = World(policy={"activeDeadlineSeconds": 300})
    world.settle()
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    for pod in world.pods.values():
        pod["status"] = {"phase": "Pending", "conditions": [scheduled]}
    world.spend(300)
    message = world.condition("Failed")["message"]
    assert message.startswith("the task did not end within 300 s; learners: 0 of 2 ready; digits-learner-0: Unschedul")
    assert message.endswith(f"coordinator: {COORDINATOR}: Unschedulable: {said}")


def test_a_task_is_deleted_in_its_time() -> None:
    world = complete(ttlSecondsAfterFinished=1000)
    leave(world)
    assert world.look(999).requeue_after == 1
    decision = world.look(1)
    assert world.deleted
    (action,) = decision.actions
    assert action.manifest["metadata"]["uid"] == "task-uid"
    assert [event.reason for event in decision.events] == ["Expired"]
    assert decision.status is None and decision.requeue_after is None


def test_the_time_may_change_and_none_is_never() -> None:
    world = complete()
    leave(world)
    assert world.look(10**9).requeue_after is None and not world.deleted
    world.task["spec"]["policy"]["ttlSecondsAfterFinished"] = 0
    world.task["metadata"]["generation"] += 1
    assert world.look().status is None, "of what is gone there is none to write, and its Event would be lost with it"
    assert world.deleted


def test_no_time_is_at_once_but_never_before_the_end_is_kept() -> None:
    world = running(policy={"ttlSecondsAfterFinished": 0})
    world.progress = progress("Failed", 3, reason="StorageFailed", message="no space")
    world.look()
    assert world.status["phase"] == "Failed" and not world.deleted
    world.look()
    assert world.deleted


def test_a_coordinators_deadline_names_what_kubernetes_said_of_the_learner() -> None:
    world = World()
    world.settle()
    world.run("digits-learner-0")
    world.run(COORDINATOR)
    world.wait("digits-learner-1", "ErrImagePull", "not found")
    said = "after 900 s, 1 of the 2 learners needed are there; missing: learner-1 (cannot be reached)"
    world.progress = progress("Failed", 0, reason="BelowQuorum", message=said)
    world.settle()
    failed = world.condition("Failed")
    assert (failed["reason"], failed["message"]) == ("BelowQuorum", f"{said}; {PULL}")


@pytest.mark.parametrize(
    ("complete", "word", "reason"),
    [
        (True, "TestScoreReached", "TestScoreReached"),
        (True, "Whatever", "Completed"),
        (True, "BelowQuorum", "Completed"),
        (False, "SetupRefused", "SetupRefused"),
        (False, "PrivacyBudgetSpent", "PrivacyBudgetSpent"),
        (False, "RoundsCompleted", "CoordinatorFailed"),
        (False, "no word!", "CoordinatorFailed"),
        (False, "", "CoordinatorFailed"),
    ],
)
def test_verdicts_have_reasons_of_a_closed_set(complete: bool, word: str, reason: str) -> None:
    world = running()
    world.progress = progress("Complete" if complete else "Failed", 20, reason=word, message="so it is")
    world.settle()
    assert world.condition("Complete" if complete else "Failed")["reason"] == reason


LOST: list[tuple[Any, str]] = [
    (None, "is gone, or is not this task's any more"),
    ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being deleted"),
    ({"status": {"phase": "Lost"}}, "has lost its volume"),
]


@pytest.mark.parametrize(("change", "words"), LOST, ids=[words for _, words in LOST])
def test_a_lost_volume_ends_the_task_once_its_coordinator_is_gone(change: Any, words: str) -> None:
    world = running()
    claims = world.children["volume_claims"]
    if change is None:
        claims.clear()
    else:
        for part, members in change.items():
            claims[COORDINATOR].setdefault(part, {}).update(members)
    world.settle()
    assert world.status["phase"] == "Running", "who runs has its volume"
    assert len(claims) == (change is not None), "and a second one would be another"
    del world.pods[COORDINATOR]
    world.progress = None
    world.settle()
    failed = world.condition("Failed")
    assert failed["reason"] == "VolumeLost"
    assert (
        failed["message"] == f"the volume claim {COORDINATOR} {words}, and with it all that was decided up to round 1"
    )
    assert world.pods == {}


def test_a_volume_lost_before_the_first_round_is_made_anew() -> None:
    world = World()
    world.settle()
    world.children["volume_claims"].clear()
    del world.pods[COORDINATOR]
    world.settle()
    assert set(world.children["volume_claims"]) == {COORDINATOR} and COORDINATOR in world.pods


def test_a_coordinator_that_crashes_beside_a_lost_claim_still_has_its_volume() -> None:
    world = running()
    world.children["volume_claims"].clear()
    world.progress = None
    world.end(COORDINATOR, 1, "boom")
    world.settle()
    assert world.status["phase"] != "Failed"
    world.pods[COORDINATOR]["status"]["phase"] = "Failed"
    world.settle()
    assert world.condition("Failed")["reason"] == "VolumeLost"


def test_a_task_whose_learners_are_all_gone_does_not_say_that_it_runs() -> None:
    world = running(policy={"preRunningDeadlineSeconds": 100})
    for name in LEARNERS:
        world.wait(name, "ImagePullBackOff", "x")
    # After its first round a coordinator says Running, whatever it waits for.
    world.progress = progress("Running", 7, reason="WaitingForLearners")
    world.settle()
    assert world.status["phase"] == "Starting"
    assert world.condition("Progressing")["reason"] == "WaitingForLearners"
    world.look(229)
    assert world.status["phase"] == "Starting"
    world.look(1)
    assert world.condition("Failed")["reason"] == "PreRunningDeadlineExceeded"


def test_a_coordinator_that_nobody_hears_for_long_is_not_said_to_progress() -> None:
    world = running()
    world.progress, world.silent = None, 59
    assert world.look(59).status is None
    world.silent = 60
    world.look(1)
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("Unknown", "CoordinatorSilent")
    assert ("Warning", "CoordinatorSilent") in world.told
    world.silent = 1000
    assert world.look(940).status is None
    world.progress, world.silent = progress(current=5), 0
    world.settle()
    assert world.status["phase"] == "Running"
