"""Tasks that were told to go, and are kept for a while by a finalizer of somebody else."""

from __future__ import annotations

import pytest

from .world import World, running

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
