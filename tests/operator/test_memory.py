"""What is remembered is what there is, in whatever order watches and listings tell it, once they have told all."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.memory import CHILD_KINDS, Memory, kept
from collective_operator.cluster.protocol import ClusterError, TaskKey

Manifest = dict[str, Any]
KEY = TaskKey("default", "digits")
TASK = "CollectiveTask"


def task(version: int = 1, uid: str = "task-uid") -> Manifest:
    metadata = {"name": "digits", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "collectivelearning.dev/v1alpha1", "kind": TASK, "metadata": metadata, "spec": {}}


def pod(name: str, version: int, uid: str = "", **metadata: Any) -> Manifest:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {"collectivelearning.dev/task": "digits"},
            **metadata,
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "learner", "image": "i", "ports": [], "args": ["x"] * 50}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    }


def listed(memory: Memory, *pods: Manifest, version: int, of: TaskKey | None = KEY, within: Any = None) -> set[TaskKey]:
    return memory.listed("Pod", pods, version=str(version), of=of, within=within)


def known(memory: Memory) -> dict[str, str]:
    children = memory.record(KEY).children
    return {
        name: f"{child['metadata']['uid']}@{child['metadata']['resourceVersion']}"
        for (_, name), child in children.items()
    }


def test_words_that_come_late_change_nothing() -> None:
    memory = Memory()
    memory.tell(TASK, task(5))
    memory.tell(TASK, task(3))
    assert memory.task(KEY) == kept(TASK, task(5))
    memory.tell("Pod", pod("a", 7))
    memory.tell("Pod", pod("a", 6, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert known(memory) == {"a": "uid-a@7"}
    memory.tell("Pod", pod("a", 8), gone=True)
    memory.tell("Pod", pod("a", 7))
    assert known(memory) == {}
    memory.tell("Pod", pod("a", 9, uid="another"))
    memory.tell("Pod", pod("a", 8), gone=True)
    assert known(memory) == {"a": "another@9"}
    memory.tell("Pod", pod("a", 10))
    assert known(memory) == {"a": "uid-a@10"}, "it was not gone, it had lost its label for a while"


def test_a_listing_tells_what_went_and_not_what_came_since() -> None:
    memory = Memory()
    memory.tell(TASK, task())
    for name, version in (("a", 3), ("b", 4), ("new", 9)):
        memory.tell("Pod", pod(name, version))
    assert listed(memory, pod("a", 3), pod("c", 5), version=6) == {KEY}
    assert set(known(memory)) == {"a", "c", "new"}
    assert listed(memory, pod("a", 3), pod("c", 5), pod("new", 9), version=9) == set(), "no news"
    other = pod("d", 4) | {"metadata": {**pod("d", 4)["metadata"], "namespace": "other"}}
    memory.tell("Pod", other)
    assert listed(memory, version=99, of=None, within="default") == {KEY}
    assert (known(memory), memory.record(TaskKey("other", "digits")).children != {}) == ({}, True)
    assert listed(memory, version=99, of=None) == {TaskKey("other", "digits")}


def test_a_task_of_the_same_name_inherits_nothing() -> None:
    memory = Memory()
    memory.tell(TASK, task(1))
    record = memory.record(KEY)
    record.complete, record.sent = True, ({}, "1")
    memory.tell(TASK, task(2, uid="another"))
    assert (memory.record(KEY).complete, memory.record(KEY).sent) == (False, None)
    memory.tell(TASK, task(3, uid="another"), gone=True)
    assert memory.task(KEY) is None and memory.tasks() == {}


def test_a_task_in_doubt_is_read_again() -> None:
    memory = Memory()
    memory.tell(TASK, task(5))
    memory.record(KEY).complete = True
    memory.doubt(KEY)
    assert memory.task(KEY) is None and not memory.record(KEY).complete
    memory.tell(TASK, task(4))
    assert memory.task(KEY) is not None, "whatever it is told then"
    memory.doubt(TaskKey("default", "nobody"))
    assert set(memory.tasks()) == {KEY}


def test_what_is_kept_is_small_and_enough() -> None:
    small = kept("Pod", pod("a", 1, managedFields=[{"f": 1}], annotations={"x": "y" * 999}))
    assert small["metadata"].keys() <= {"name", "namespace", "uid", "resourceVersion", "labels"}
    assert small["spec"] == {"nodeName": "n1", "containers": [{"name": "learner", "ports": []}]}
    assert small["status"] == {"phase": "Running", "podIP": "10.0.0.1", "conditions": []}
    assert kept("ConfigMap", {**pod("a", 1), "data": {"k": "v"}})["data"] == {"k": "v"}
    assert kept("Pod", small) == small, "twice is once"
    policy = kept("NetworkPolicy", {**pod("a", 1), "spec": {"podSelector": {}}})
    assert (policy["apiVersion"], policy["spec"]) == ("networking.k8s.io/v1", {"podSelector": {}})
    assert set(CHILD_KINDS) == {"Pod", "Service", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy"}


# What happens to one pod's name: it is made, changes, or goes; each a version more.
history = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "put", "delete"])), max_size=25)
delivery = st.lists(st.sampled_from(["event", "event", "list", "arrive", "skip"]), max_size=60)


@settings(max_examples=300, deadline=None)
@given(history, delivery)
def test_in_any_order(steps: list[tuple[str, str]], how: list[str]) -> None:
    states: list[dict[str, Manifest]] = [{}]
    events: list[tuple[Manifest, bool]] = []
    for version, (name, what) in enumerate(steps, start=1):
        there = dict(states[-1])
        if what == "delete":
            gone = there.pop(name, None)
            if gone:
                events.append((pod(name, version, gone["metadata"]["uid"]), True))
        else:
            uid = there[name]["metadata"]["uid"] if name in there else f"{name}{version}"
            there[name] = pod(name, version, uid)
            events.append((there[name], False))
        states.append(there)
    memory, told, on_the_way, gaps = Memory(), 0, [], False
    memory.tell(TASK, task())
    for move in how:
        if move == "event" and told < len(events):
            memory.tell("Pod", events[told][0], gone=events[told][1])
            told += 1
        elif move == "skip" and told < len(events):
            told, gaps = told + 1, True  # a watch that had to begin anew has missed it
        elif move == "list":
            # Taken now, and answered later; a watch never runs ahead of the API server.
            earliest = int(events[told - 1][0]["metadata"]["resourceVersion"]) if told else 0
            on_the_way.append(max(earliest, len(states) // 2))
        elif move == "arrive" and on_the_way:
            version = on_the_way.pop(0)
            listed(memory, *copy.deepcopy(list(states[version].values())), version=version)
    for manifest, gone in events[told:]:
        memory.tell("Pod", manifest, gone=gone)
    truth = {
        name: f"{there['metadata']['uid']}@{there['metadata']['resourceVersion']}" for name, there in states[-1].items()
    }
    if not gaps:
        assert known(memory) == truth, "watches that miss nothing suffice"
    listed(memory, *states[-1].values(), version=len(states))
    assert known(memory) == truth, "and a listing mends what they miss"


async def test_nothing_is_left_of_a_task_that_is_gone_whatever_comes_late() -> None:
    class Server:
        async def request(self, *_: Any, **__: Any) -> Any:
            raise ClusterError(status=404, message="not found")

    memory, nobody = Memory(), cast("Any", None)
    vigil = cast("Any", SimpleNamespace(forget=lambda _: None))
    cluster = KubernetesCluster(api=cast("Any", Server()), ask=nobody, memory=memory, keeper=nobody, vigil=vigil)
    there = pod("digits-learner-0", 2)
    memory.tell(TASK, task())
    memory.tell("Pod", there)
    memory.tell(TASK, task(), gone=True)
    memory.tell("Pod", there, gone=True)
    for gone in (True, False):
        memory.tell("Pod", there, gone=gone)
        assert await cluster.get_task(KEY, anew=False) is None
        assert not memory._records
