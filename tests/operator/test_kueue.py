"""Kueue's hold on pods: taken off those that will not run any more, and off no other."""

from __future__ import annotations

from typing import Any

from collective_operator.desired.kueue import released
from collective_operator.reconcile import Decision, Release

from .world import World, running

HOLD = "kueue.x-k8s.io/managed"
LEARNER = "digits-learner-1"
COORDINATOR = "digits-coordinator"


def held(world: World, **members: Any) -> None:
    """Have Kueue hold all pods."""
    for pod in world.pods.values():
        pod["metadata"] |= {"finalizers": ["example.com/other", HOLD], "resourceVersion": "7"}
        pod["spec"] = {**pod.get("spec", {}), "nodeName": "n1"}


def let_go(decision: Decision) -> list[str]:
    return [action.manifest["metadata"]["name"] for action in decision.actions if isinstance(action, Release)]


def leave(world: World, name: str, *, phase: str = "Running", placed: bool = True) -> None:
    world.pods[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    world.pods[name]["status"]["phase"] = phase
    if not placed:
        del world.pods[name]["spec"]["nodeName"]


def test_a_pod_that_was_told_to_go_is_let_go_once_it_will_not_run() -> None:
    world = running()
    held(world)
    assert let_go(world.look()) == []
    leave(world, LEARNER)
    assert let_go(world.look()) == [], "its program may be stopping still"
    for phase in ("Failed", "Succeeded"):
        leave(world, LEARNER, phase=phase)
        assert let_go(world.look()) == [LEARNER]
    assert "kept by its finalizers" in world.status["learnerStatuses"][1]["message"]
    leave(world, LEARNER, phase="Pending", placed=False)
    assert let_go(world.look()) == [LEARNER], "the queue has never let it in"


def test_in_every_state_of_a_task() -> None:
    world = running()
    held(world)
    leave(world, LEARNER, phase="Failed")
    world.task["spec"]["suspend"] = True
    assert let_go(world.look()) == [LEARNER]
    world.task["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert let_go(world.look()) == [LEARNER], "it is being deleted in the foreground"


def test_what_is_left_of_a_task_that_has_ended_waits_for_no_other() -> None:
    world = running()
    held(world)
    world.pods[COORDINATOR]["status"]["phase"] = "Succeeded"
    world.task["metadata"]["annotations"] = {"collectivelearning.dev/abort": "true"}
    assert let_go(world.look()) == []
    assert world.status["phase"] == "Failed"
    decision = world.look()
    assert let_go(decision) == [COORDINATOR]
    pod = world.pods[COORDINATOR]
    said = {"kueue.x-k8s.io/retriable-in-group": "false"}
    assert released(pod) == {"metadata": {"annotations": said}}
    pod["metadata"]["annotations"] = said
    assert COORDINATOR not in let_go(world.look())


def test_other_finalizers_stay_and_another_version_is_left_alone() -> None:
    world = running()
    held(world)
    leave(world, LEARNER, phase="Failed")
    left = {"resourceVersion": "7", "finalizers": ["example.com/other"]}
    assert released(world.pods[LEARNER]) == {"metadata": left}
    world.pods[LEARNER]["metadata"]["finalizers"] = [HOLD]
    assert released(world.pods[LEARNER]) == {"metadata": {"resourceVersion": "7", "finalizers": None}}


def test_without_the_right_to_let_go_nothing_is_to_be_done() -> None:
    """Or every turn would be one in which there is, and would look at everything anew."""
    world = running()
    held(world)
    leave(world, LEARNER, phase="Failed")
    world.may_release = False
    assert let_go(world.look()) == []
    world.may_release = True
    assert let_go(world.look()) == [LEARNER]
