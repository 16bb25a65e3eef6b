"""An operator one version on, and a definition one version behind: a task that runs goes on, with the pods that it has.

`recorded/` holds tasks with their children and status as earlier versions of this operator made them, 0.1.0 last. A
version that makes them otherwise adds a record and changes none.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from collective_operator.reconcile import Create, Decision

from .world import FIELDS, World

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
VERSIONS = pytest.mark.parametrize("recorded", RECORDED, ids=[path.stem for path in RECORDED])
PODS = {"digits-learner-0", "digits-learner-1", "digits-coordinator"}


def world_of(recorded: Path) -> World:
    """A world as an earlier version left it a minute ago."""
    record = json.loads(recorded.read_text())
    world = World()
    for made in record["objects"]:
        if made["kind"] == "CollectiveTask":
            world.task = made
        else:
            world.children[FIELDS[made["kind"]]][made["metadata"]["name"]] = made
    world.progress = record["progress"]
    world.now += timedelta(seconds=60)
    return world


def touched_pods(decision: Decision) -> list[str]:
    manifests = [action.manifest for action in decision.actions]
    return [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Pod"]


def goes_on(world: World) -> None:
    """See that looking at it again and again touches no pod, ends, and leaves it running."""
    uids = {name: pod["metadata"]["uid"] for name, pod in world.pods.items()}
    assert uids.keys() == PODS
    for _ in range(8):
        decision = world.look(5)
        assert touched_pods(decision) == []
        if decision.status is None and not decision.actions:
            break
    else:
        raise AssertionError("it does not settle")
    assert {name: pod["metadata"]["uid"] for name, pod in world.pods.items()} == uids
    assert (world.status["phase"], world.status["round"]["current"]) == ("Running", 3)
    assert world.status["coordinator"]["attempts"] == 0


@VERSIONS
def test_what_an_earlier_version_began_goes_on(recorded: Path) -> None:
    world = world_of(recorded)
    began = world.status["startTime"]
    goes_on(world)
    assert world.status["startTime"] == began
    assert world.status["learners"]["summary"] == "2/2"


@VERSIONS
def test_a_pod_that_it_loses_later_is_made_to_fit_the_others(recorded: Path) -> None:
    world = world_of(recorded)
    goes_on(world)
    others = "tls" in str(world.pods["digits-learner-0"]["spec"])
    del world.pods["digits-learner-1"]
    world.look()
    assert world.pods.keys() == PODS
    assert ("tls" in str(world.pods["digits-learner-1"]["spec"])) == others


@VERSIONS
def test_a_pod_that_it_loses_later_is_taken_as_the_one_before_was(recorded: Path) -> None:
    begun = World()
    begun.look()
    first = [action for action in begun.look().actions if isinstance(action, Create)]
    assert {action.manifest["metadata"]["name"] for action in first} >= PODS
    assert not any(action.again for action in first), "what pods do not have is refused of a task that begins"
    world = world_of(recorded)
    goes_on(world)
    world.pods.clear()
    again = [action for action in world.look().actions if isinstance(action, Create)]
    assert {action.manifest["metadata"]["name"] for action in again if action.again} == PODS


def members(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every member of every object."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if isinstance(node, dict):
            yield (*path, key)
        yield from members(value, (*path, key))


def without(task: Any, path: tuple[Any, ...]) -> Any:
    pruned = copy.deepcopy(task)
    here = pruned
    for key in path[:-1]:
        here = here[key]
    del here[path[-1]]
    return pruned


def test_a_definition_that_drops_any_one_field_costs_no_pod() -> None:
    recorded = RECORDED[0]
    task = world_of(recorded).task
    paths = [path for path in members(task) if path[0] in ("spec", "status")]
    assert ("status", "coordinator", "attempts") in paths and ("spec", "policy") in paths
    for path in paths:
        # Of each condition the schema requires all members: whole ones may be missing, not parts.
        if path[:2] == ("status", "conditions") and len(path) > 2:
            continue
        world = world_of(recorded)
        world.task = without(task, path)
        for _ in range(8):
            decision = world.look(5)
            assert touched_pods(decision) == [], path
            if decision.status is None and not decision.actions:
                break
        assert world.pods.keys() == PODS, path


@pytest.mark.parametrize(
    "label", ["app.kubernetes.io/component", "app.kubernetes.io/name", "app.kubernetes.io/managed-by"]
)
def test_pods_that_lack_a_label_that_came_later_are_kept(label: str) -> None:
    world = world_of(RECORDED[0])
    for pod in world.pods.values():
        pod["metadata"]["labels"].pop(label)
        pod["metadata"].pop("annotations", None)
    goes_on(world)
