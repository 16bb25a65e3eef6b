"""What the cluster refused: when it is asked for again, and what of it is no refusal at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from collective_operator.api import KIND, parse_task
from collective_operator.cluster.changes import Changes
from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.objects import key_of
from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.cluster.refusals import Refusals, Waiting
from collective_operator.controller import _act
from collective_operator.desired import desired_children
from collective_operator.desired.learner_pod import learner_pod
from collective_operator.reconcile.actions import Create, Update
from collective_operator.urgency import makes_room

from .virtual_time import on_virtual_time
from .world import PLATFORM, World, manifest

QUOTA = ClusterError(status=403, message="exceeded quota: few")


A, B, C = "digits-learner-0", "digits-learner-1", "digits-coordinator"


def alone(name: str = "digits") -> Refusals:
    return Waiting().of(TaskKey("default", name))


def refuse(refusals: Refusals, name: str, *, now: float) -> None:
    refusals.refused(name, f'pods "{name}" is forbidden: exceeded quota: few, used: pods={now:.0f}', now=now)


def test_asked_for_again_less_and_less_often_and_one_at_a_time() -> None:
    refusals, now, asked = alone(), 0.0, []
    assert refusals.standing(generation=1, now=now) == ({}, 0)
    for name in (A, B, C):
        refuse(refusals, name, now=now)
    while now < 600:
        standing, seconds = refusals.standing(generation=1, now=now)
        if seconds:
            assert set(standing) == {A, B, C}
            now += seconds
            continue
        assert refusals.standing(generation=1, now=now + 0.1) == (standing, 0), "a turn looks twice"
        (name,) = {A, B, C} - standing.keys()
        asked.append((now, name))
        refuse(refusals, name, now=now)
    assert asked[:7] == [(2, A), (4, B), (8, C), (16, A), (32, B), (62, C), (92, A)]
    assert asked[7:10] == [(122, B), (152, C), (182, A)], "half a minute is what it costs that nobody sees a quota"
    refusals.made("other")
    assert refusals.standing(generation=1, now=now)[0]
    refusals.made(A)
    assert refusals.standing(generation=1, now=now) == ({}, 0), "there is room: all the others"


def wait_of(refusals: Refusals, *, now: float) -> float:
    return refusals.standing(generation=1, now=now)[1]


def crowd(size: int, *, now: float) -> tuple[Waiting, dict[str, Refusals]]:
    """Tasks that have waited for an hour, in two namespaces, and were refused a second one after the other."""
    waiting, tasks = Waiting(), dict[str, Refusals]()
    for number in range(size):
        namespace = "one" if number % 2 == 0 else "two"
        tasks[f"{namespace}/{number}"] = refusals = waiting.of(TaskKey(namespace, str(number)))
        wait_of(refusals, now=now)
        refuse(refusals, A, now=now - 3600)
    for refusals in tasks.values():
        refuse(refusals, A, now=now)
        now += 0.001
    return waiting, tasks


@pytest.mark.parametrize(("size", "bound"), [(1, 30), (3, 30), (5, 40), (10, 80), (15, 120), (500, 120)])
def test_the_more_wait_the_less_often_each_asks(size: int, bound: float) -> None:
    _, tasks = crowd(size, now=5000)
    assert wait_of([*tasks.values()][-1], now=5000) == pytest.approx(bound, abs=1)


def test_those_that_ask_for_nothing_any_more_are_not_counted() -> None:
    waiting, tasks = crowd(10, now=5000)
    (first, *others) = tasks.values()
    for refusals in others[:3]:
        refusals.made(A)
    for now in range(5080, 5400, 80):
        wait_of(first, now=now)
        refuse(first, A, now=now)
    assert wait_of(first, now=5320) == pytest.approx(30), "six have ended, and three have what they want"
    assert waiting.room_was_made(TaskKey("two", "other"), now=5321) is None


def test_who_has_waited_longest_asks_soon_when_there_is_room() -> None:
    waiting, tasks = crowd(6, now=5000)
    gone = TaskKey("one", "done")
    assert waiting.room_was_made(TaskKey("three", "done"), now=5001) is None, "a quota is of one namespace"
    assert waiting.room_was_made(gone, now=5001) == TaskKey("one", "0")
    assert waiting.room_was_made(gone, now=5001) == TaskKey("one", "2"), "each that goes makes room for one more"
    assert [wait_of(tasks[name], now=5001) for name in ("one/0", "one/2")] == [2, 2], "it is counted a moment later"
    assert wait_of(tasks["one/4"], now=5001) > 30
    refuse(tasks["one/0"], A, now=5003)
    assert waiting.room_was_made(gone, now=5004) == TaskKey("one", "4"), "who has just asked is the last"
    assert waiting.room_was_made(gone, now=5004) == TaskKey("one", "0")
    assert waiting.room_was_made(gone, now=5004) is None, "all of them ask soon"


def test_who_waits_for_the_very_name_that_is_free_now_asks_soon() -> None:
    waiting, _ = crowd(6, now=5000)
    assert waiting.room_was_made(TaskKey("one", "4"), now=5001) == TaskKey("one", "4")
    waiting.of(TaskKey("one", "0"))
    assert waiting.room_was_made(TaskKey("one", "done"), now=5001) == TaskKey("one", "2"), "a new task of an old name"


@pytest.mark.parametrize(
    ("kind", "phase", "gone", "makes"),
    [
        ("Pod", "Running", False, False),
        ("Pod", "Failed", False, True),
        ("Pod", "Running", True, True),
        ("PersistentVolumeClaim", "Bound", True, True),
        ("CollectiveTask", "Failed", True, False),
    ],
)
def test_what_makes_room(kind: str, phase: str, gone: bool, makes: bool) -> None:
    assert makes_room(kind, {"metadata": {}, "status": {"phase": phase}}, gone=gone) is makes


def test_one_of_each_cause_and_another_where_nobody_asks() -> None:
    refusals = alone()
    refusals.standing(generation=1, now=0)
    for name in (A, B):
        refuse(refusals, name, now=0)
    refusals.refused(C, "a Pod of this name exists and is not this task's", now=0)
    assert set(refusals.standing(generation=1, now=2)[0]) == {B}
    # Somebody else is waited for, or a learner is not wanted any more: the time of the others must come, too.
    assert set(refusals.standing(generation=1, now=4)[0]) == {A}


def test_a_task_that_somebody_changed_is_another_matter() -> None:
    refusals = alone()
    refusals.standing(generation=1, now=0)
    refusals.refused("a", "no such priority class", now=0)
    assert refusals.standing(generation=1, now=1)[0] == {"a": "no such priority class"}
    assert refusals.standing(generation=2, now=1) == ({}, 0)


class Server:
    """Answers creates with an error, and gets with another."""

    def __init__(self, error: ClusterError) -> None:
        self.error = error

    async def request(self, method: str, *_: Any, **__: Any) -> Any:
        raise self.error if method != "GET" else ClusterError(status=404, message="not found")


async def create(error: ClusterError) -> tuple[ClusterError, dict[str, str]]:
    """Have a learner's pod created; return what was raised, and what is remembered."""
    memory, task = Memory(), parse_task(manifest())
    nobody = cast("Any", None)
    cluster = KubernetesCluster(api=cast("Any", Server(error)), ask=nobody, memory=memory, keeper=nobody, vigil=nobody)
    with pytest.raises(ClusterError) as raised:
        await cluster.create(learner_pod(task, 0, PLATFORM))
    (record,) = memory._records.values()
    return raised.value, dict(record.refusals._said)


async def test_a_refusal_is_remembered() -> None:
    error, remembered = await create(QUOTA)
    assert error.refused and remembered == {"digits-learner-0": QUOTA.message}


async def test_a_webhook_that_cannot_be_asked_has_refused() -> None:
    words = 'Internal error occurred: failed calling webhook "guard.example.com": connection refused'
    error, remembered = await create(ClusterError(status=500, message=words))
    assert error.refused and remembered == {"digits-learner-0": words}
    error, remembered = await create(ClusterError(status=500, message="etcdserver: leader changed"))
    assert not error.refused and not remembered


class Hanging:
    """Asks a webhook about pods that nobody answers, and tells so later."""

    def __init__(self) -> None:
        self.asked = Counter[str]()

    async def request(self, method: str, path: str, *, resource: str, body: dict[str, Any], **_: Any) -> Any:
        self.asked[resource] += 1
        await asyncio.sleep(10)
        if resource == "pods":
            raise ClusterError(status=500, message='failed calling webhook "guard.example.com": timed out')
        return {**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}


def test_a_webhook_that_hangs_is_not_waited_for_by_each_learner() -> None:
    """Of 256 learners a turn would take minutes, in which nobody sees to the task, and others wait to start."""

    async def main() -> None:
        memory, task, server, nobody = Memory(), parse_task(manifest()), Hanging(), cast("Any", None)
        cluster = KubernetesCluster(api=cast("Any", server), ask=nobody, memory=memory, keeper=nobody, vigil=nobody)
        pods = [Create(learner_pod(task, index, PLATFORM)) for index in range(256)]
        for now in (10, 30):
            refused, _ = await _act(cluster, pods, refused={})
            assert len(refused) == 256 and len(set(refused.values())) == 1
            assert asyncio.get_running_loop().time() == now
            assert server.asked["pods"] <= 16, "another turn finds out anew"
            (record,) = memory._records.values()
            assert len(record.refusals._said) == 256
            await cluster.create(next(child.build() for child in desired_children(task, PLATFORM)))

    on_virtual_time(main)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 429, 500, 503])
async def test_a_webhook_has_refused_with_whatever_status(status: int) -> None:
    words = 'admission webhook "guard.example.com" denied the request: the signature cannot be looked up'
    error, remembered = await create(ClusterError(status=status, message=words))
    assert error.refused and not error.conflict and remembered == {"digits-learner-0": words}


@pytest.mark.parametrize("status", [403, 404, 409])
async def test_a_webhook_that_refuses_a_deletion_has_not_said_that_the_pod_is_gone(status: int) -> None:
    words = 'admission webhook "guard.example.com" denied the request: not now'
    changes = Changes(cast("Any", Server(ClusterError(status=status, message=words))), Memory())
    pod = learner_pod(parse_task(manifest()), 0, PLATFORM)
    pod["metadata"] |= {"uid": "u", "resourceVersion": "1", "finalizers": ["kueue.x-k8s.io/managed"]}
    for change in (changes.delete, changes.release):
        with pytest.raises(ClusterError, match="not now"):
            await change(pod)
    assert changes.may_release, "of other pods"


async def test_a_conflict_over_something_else_has_made_nothing() -> None:
    words = 'Operation cannot be fulfilled on resourcequotas "few": the object has been modified'
    error, remembered = await create(ClusterError(status=409, message=words))
    assert not error.refused and error.message == words, "it is tried again soon"
    assert not remembered


class Webhook:
    """Puts whatever is written back as it was, in its first version."""

    async def request(self, method: str, *_: Any, body: dict[str, Any], **__: Any) -> Any:
        assert method == "PUT"
        return {**body, "spec": {"as": "it was"}, "metadata": {**body["metadata"], "resourceVersion": "1"}}


async def test_what_is_put_back_is_written_once_for_each_wish() -> None:
    memory, task = Memory(), {**manifest(), "status": {"phase": "Running"}}
    nobody = cast("Any", None)
    cluster = KubernetesCluster(
        api=cast("Any", Webhook()),
        ask=nobody,
        memory=memory,
        keeper=nobody,
        vigil=cast("Any", SimpleNamespace(due=lambda *_, **__: False)),
    )
    memory.tell(KIND, task)
    key = key_of(task)
    policy = next(child for child in desired_children(parse_task(task), PLATFORM) if child.kind == "NetworkPolicy")
    there = policy.build()
    for version in ("0", "1"):  # something else of it is changed, and nothing is
        there["metadata"]["resourceVersion"] = version
        memory.record(key).complete = True
        memory.record(key).put_back.clear()
        await cluster.update(there)
        assert (await cluster.observe(task, anew=False)).put_back == {("NetworkPolicy", policy.name): "1"}
    changed = {**task, "metadata": {**task["metadata"], "generation": 2}}
    assert (await cluster.observe(changed, anew=False)).put_back == {}


def test_a_version_that_is_put_back_is_left_alone() -> None:
    world = World()
    for _ in range(3):
        world.look()
    (name,) = [name for name in world.children["network_policies"] if name.endswith("learners")]
    policy = world.children["network_policies"][name]
    policy["spec"] = {"podSelector": {}}
    policy["metadata"]["resourceVersion"] = "7"
    world.put_back = {("NetworkPolicy", name): "7"}
    assert world.look().actions == ()
    world.put_back = {("NetworkPolicy", name): "6"}
    assert [type(action) for action in world.look().actions] == [Update]
