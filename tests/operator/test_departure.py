"""Tasks that were told to go, and are kept for a while by a finalizer of somebody else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from collective_operator.reconcile import Delete

from .world import START, World, progress, running

AT = "2026-01-01T00:00:00Z"


def told_to_go(world: World, *finalizers: str) -> World:
    world.task["metadata"] |= {"deletionTimestamp": AT, "finalizers": list(finalizers)}
    return world


@pytest.mark.parametrize("policy", ["Running", "All", "None"])
def test_one_that_somebody_keeps_holds_nothing_and_does_not_say_that_it_runs(policy: str) -> None:
    world = told_to_go(running(policy={"cleanPods": policy, "ttlSecondsAfterFinished": 0}), "backup.example.com/keep")
    world.settle()
    assert world.pods == {}
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "Aborted")
    assert world.condition("Failed")["message"] == (
        "it was deleted, and is kept by its finalizers backup.example.com/keep"
    )
    assert not world.deleted, "it was already"
    world.task["metadata"]["annotations"] = {"collectivelearning.dev/retry": world.status["completionTime"]}
    decision = world.look(10_000)
    assert (decision.actions, decision.status, decision.events, decision.requeue_after) == ((), None, (), None)


def test_one_that_stands_still_or_has_ended_is_no_other() -> None:
    world = World(suspend=True)
    world.settle()
    told_to_go(world, "a", "b").settle()
    assert (world.made, world.condition("Failed")["reason"]) == (0, "Aborted")
    world = running(policy={"cleanPods": "None"})
    world.task["metadata"]["annotations"] = {"collectivelearning.dev/abort": "enough"}
    world.settle()
    assert set(world.pods) == {"digits-learner-0", "digits-learner-1"}, "as its policy says"
    told_to_go(world, "a").settle()
    assert world.pods == {} and world.condition("Failed")["message"] == "enough"


@pytest.mark.parametrize("finalizers", [(), ("foregroundDeletion",), ("orphan",), ("orphan", "a")])
def test_how_kubernetes_deletes_is_its_own(finalizers: tuple[str, ...]) -> None:
    world = told_to_go(running(), *finalizers)
    decision = world.look()
    assert (decision.actions, decision.status, decision.events, decision.requeue_after) == ((), None, (), None)


def leaving(world: World, *names: str) -> World:
    """As the collector of garbage leaves a task's pods: told to go, all but these gone."""
    for name in set(world.pods) - set(names):
        del world.pods[name]
    for pod in world.pods.values():
        pod["metadata"]["deletionTimestamp"] = (world.now + timedelta(seconds=30)).isoformat()
    world.progress = None
    return world


def test_a_pod_that_does_not_go_before_its_task_is_told_once() -> None:
    world = leaving(told_to_go(running(policy={"cleanPods": "None"}), "foregroundDeletion"), "digits-learner-1")
    pod = world.pods["digits-learner-1"]
    pod["spec"]["nodeName"] = "n1"
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "NodeStatusUnknown"}]
    decision = world.look()
    assert (decision.actions, decision.status, decision.events, decision.requeue_after) == ((), None, (), 90)
    world.told.clear()
    world.spend(90)
    assert (world.status["phase"], world.status["reason"]) == ("Failed", "Aborted")
    assert world.condition("Failed")["message"] == (
        "it was deleted, and is kept by pods that are still there: "
        "digits-learner-1: is being deleted: its node n1 does not answer"
    )
    assert world.told == [("Warning", "Aborted")]
    decision = world.look(10_000)
    assert (decision.actions, decision.status, decision.events, decision.requeue_after) == ((), None, (), None)


def test_a_task_that_has_ended_or_cannot_be_read_waits_for_its_pods_as_well() -> None:
    world = running()
    world.progress = progress("Complete", 20, reason="RoundsCompleted", message="done")
    world.settle()
    world.pods["digits-coordinator"]["metadata"]["deletionTimestamp"] = START.isoformat()
    world.task["metadata"] |= {"deletionTimestamp": AT, "finalizers": ["foregroundDeletion"]}
    decision = world.look(10_000)
    assert (decision.actions, decision.status, decision.requeue_after) == ((), None, None), "how it ended was told"
    world = leaving(told_to_go(running(), "foregroundDeletion"), "digits-coordinator")
    world.task["spec"]["newThing"] = 1
    world.spend(90)
    assert world.condition("Failed")["message"].endswith("digits-coordinator: is being deleted")
    assert not any(isinstance(action, Delete) for action in world.look(10).actions)
