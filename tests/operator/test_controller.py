"""One turn: what is remembered is enough to see that nothing is to be done, and never enough to do something."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from collective_operator.cluster.protocol import ClusterError, Manifest, Observed, Secured, TaskEvent, TaskKey
from collective_operator.controller import Outcome, reconcile_once
from collective_operator.securing import Secure

from .world import PLATFORM, World, progress, running

KEY = TaskKey("default", "digits")
LEARNER = "digits-learner-1"
LEFT = "digits-learner-2"


class Remembering:
    """A cluster of which somebody remembers how it was."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = world.observed()
        self.done: list[str] = []
        self.conflict = False
        self.lists_anyway = False
        """What is remembered of the children is known not to be all."""
        self.remembered_task: Manifest | None = None

    async def get_task(self, key: TaskKey, *, anew: bool = True) -> Manifest | None:
        self.done += ["get"] * anew
        return copy.deepcopy(self.world.task if anew or self.remembered_task is None else self.remembered_task)

    async def observe(self, task: Manifest, *, anew: bool = True) -> Observed:
        anew = anew or self.lists_anyway
        self.done += ["list"] * anew
        return self.world.observed() if anew else replace(self.memory, remembered=True, progress=self.world.progress)

    async def secure(self, task: Manifest, action: Secure) -> Secured:
        self.done += [f"secure {credential.pod}" for credential in action.credentials]
        return Secured()

    async def create(self, manifest: Manifest, *, strictly: bool = True) -> None:
        self.done.append(f"create {manifest['metadata']['name']}")

    async def update(self, manifest: Manifest) -> None:
        self.done.append(f"update {manifest['metadata']['name']}")

    async def delete(self, manifest: Manifest) -> None:
        self.done.append(f"delete {manifest['metadata']['name']}")

    async def update_status(self, task: Manifest, status: Mapping[str, Any]) -> None:
        if self.conflict:
            raise ClusterError(status=409, message="changed")
        self.done.append("status")
        self.world.task["status"] = dict(status)

    def emit(self, task: Manifest, events: Sequence[TaskEvent]) -> None:
        self.done += [f"event {event.reason}" for event in events]


async def turn(cluster: Remembering) -> Outcome:
    return await reconcile_once(cluster, KEY, now=cluster.world.now, platform=PLATFORM)


async def test_nothing_to_do_asks_for_nothing() -> None:
    cluster = Remembering(running())
    outcome = await turn(cluster)
    assert (cluster.done, outcome.requeue_after) == ([], 5)


async def test_progress_is_written_on_what_is_remembered() -> None:
    cluster = Remembering(running())
    cluster.world.progress["round"]["current"] = 9
    await turn(cluster)
    assert cluster.done == ["status"]


async def test_a_pod_that_is_only_forgotten_is_not_made_twice() -> None:
    cluster = Remembering(running())
    pods = {name: pod for name, pod in cluster.memory.pods.items() if name != LEARNER}
    cluster.memory = replace(cluster.memory, pods=pods)
    await turn(cluster)
    assert cluster.done == ["get", "list"]


async def test_a_pod_that_is_gone_is_made_once() -> None:
    world = running()
    del world.pods[LEARNER]
    cluster = Remembering(world)
    await turn(cluster)
    assert cluster.done == ["get", "list", f"secure {LEARNER}", f"create {LEARNER}", "status", "event Replaced"]


async def test_a_task_is_read_anew_where_only_its_children_were() -> None:
    world = running()
    del world.pods[LEARNER]
    cluster = Remembering(world)
    cluster.lists_anyway = True
    cluster.remembered_task = copy.deepcopy(world.task)
    world.task["spec"]["suspend"] = True
    world.task["metadata"]["resourceVersion"] = "2"
    await turn(cluster)
    assert f"create {LEARNER}" not in cluster.done and "delete digits-coordinator" in cluster.done


async def test_that_it_is_time_to_look_at_keys_is_enough_to_look() -> None:
    world = running()
    cluster = Remembering(world)
    world.credentials_due = True
    cluster.memory = replace(cluster.memory, credentials_due=True)
    await turn(cluster)
    assert cluster.done[:2] == ["get", "list"]
    assert sorted(cluster.done[2:]) == [f"secure {name}" for name in sorted(world.pods)]


async def test_an_end_is_not_told_on_what_is_only_remembered() -> None:
    world = running(policy={"preRunningDeadlineSeconds": 60})
    cluster = Remembering(world)
    for pod in cluster.memory.pods.values():
        pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.progress = None
    await turn(cluster)
    assert cluster.done == ["status"] and world.status["phase"] == "Pending", "as far as anyone knows"
    world.look(61)
    assert world.status["phase"] == "Starting"
    cluster.done.clear()
    world.task["status"]["conditions"] = [
        condition
        | (
            {"status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"}
            if condition["type"] in ("Progressing", "Suspended")
            else {}
        )
        for condition in world.status["conditions"]
    ]
    await turn(cluster)
    assert cluster.done[:2] == ["get", "list"]


async def test_that_nothing_is_there_any_more_is_looked_up() -> None:
    world = running()
    cluster = Remembering(world)
    world.task["spec"]["suspend"] = True
    cluster.memory = replace(cluster.memory, pods={})
    await turn(cluster)
    assert cluster.done == ["get", "list", "delete digits-coordinator", "status", "event Suspending"]


class Guarded(Remembering):
    """A cluster with a policy that lets no pod go."""

    async def delete(self, manifest: Manifest) -> None:
        await super().delete(manifest)
        raise ClusterError(status=422, message="pods are not to be deleted")


async def guarded_turn(cluster: Guarded) -> str:
    with pytest.raises(ClusterError) as raised:
        await turn(cluster)
    return raised.value.message


async def test_what_the_cluster_does_not_let_go_is_told() -> None:
    cluster = Guarded(running())
    cluster.world.task["spec"]["suspend"] = True
    cluster.world.task["metadata"]["generation"] += 1
    assert await guarded_turn(cluster) == "pods are not to be deleted", "so that it is tried less and less often"
    assert cluster.done[-3:] == ["delete digits-coordinator", "status", "event Suspending"]
    suspended = cluster.world.condition("Suspended")
    assert (suspended["reason"], suspended["observedGeneration"]) == ("Suspending", 2)
    assert "digits-coordinator: pods are not to be deleted, digits-learner-0, " in suspended["message"]
    cluster.done.clear()
    await guarded_turn(cluster)
    assert cluster.done == ["get", "list", "delete digits-coordinator"], "once"


async def test_pods_that_outlive_their_task_are_told_of_until_they_are_gone() -> None:
    cluster = Guarded(running())
    cluster.world.progress = progress("Complete", reason="RoundsCompleted")
    await turn(cluster)
    for expected in (["status"], []):
        cluster.done.clear()
        await guarded_turn(cluster)
        assert [done for done in cluster.done if done == "status" or done.startswith("event")] == expected, "once"
        told = cluster.world.condition("LearnersReady")
        assert (told["status"], told["reason"]) == ("False", "Finished")
        assert told["message"].startswith(
            "still there: digits-learner-0: pods are not to be deleted; digits-learner-1: "
        )
    assert cluster.world.status["phase"] == "Complete"
    for learner in ("digits-learner-0", LEARNER):
        del cluster.world.pods[learner]
    await turn(cluster)
    assert cluster.world.condition("LearnersReady")["message"] == ""


async def test_what_keeps_a_task_from_being_tried_again_is_told() -> None:
    cluster = Guarded(running())
    cluster.world.progress = progress("Failed", reason="BelowQuorum")
    await turn(cluster)
    ended = cluster.world.status["completionTime"]
    cluster.world.task["metadata"]["annotations"] = {"collectivelearning.dev/retry": ended}
    for expected in (["status"], []):
        cluster.done.clear()
        await guarded_turn(cluster)
        assert [done for done in cluster.done if done == "status" or done.startswith("event")] == expected, "once"
        told = cluster.world.condition("CoordinatorReady")["message"]
        assert told == "still there: digits-coordinator: pods are not to be deleted"
    assert (cluster.world.status["phase"], cluster.world.status["completionTime"]) == ("Failed", ended)


async def test_a_learner_that_cannot_be_removed_keeps_no_progress_from_being_told() -> None:
    cluster = Guarded(running(learners={"count": 3, "location": "x"}))
    cluster.world.task["spec"]["learners"]["count"] = 2
    cluster.world.progress = progress(current=2)
    for current in (3, 4):
        cluster.world.progress = progress(current=current)
        cluster.done.clear()
        await guarded_turn(cluster)
        assert cluster.world.status["round"]["current"] == current
        assert "delete digits-learner-2" in cluster.done and "event Removed" not in cluster.done
        ready = cluster.world.condition("LearnersReady")
        assert (ready["reason"], ready["message"]) == ("AllReady", f"2 of 2 ready; {LEFT}: pods are not to be deleted")


async def test_learners_that_are_needed_no_more_and_cannot_go_are_told_of() -> None:
    cluster = Guarded(running())
    cluster.world.progress = progress(current=20, reason="UploadingResult")
    for expected in (["status"], []):
        cluster.done.clear()
        await guarded_turn(cluster)
        assert [done for done in cluster.done if done == "status"] == expected, "once"
    finished = cluster.world.condition("LearnersReady")
    assert finished["reason"] == "Finished"
    assert f"{LEARNER}: pods are not to be deleted" in finished["message"]
