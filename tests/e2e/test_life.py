"""A task's life on a real node: it stands still and goes on, its pods cannot start or crash, its node is drained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from .kube import TASK, Namespace, run, wait_for
from .test_digits import (
    ENDLESS,
    EXAMPLE,
    ROUNDS,
    all_rounds_stand_once,
    completes_with_all_rounds,
    gone,
    long_task,
    volume_of,
)

Manifest = dict[str, Any]


def small_task(name: str, **spec: Any) -> Manifest:
    """The example with one learner, that is given up at its second crash."""
    task: Manifest = yaml.safe_load(EXAMPLE.read_text())
    task["metadata"] = {"name": name}
    learners = {"count": 1, **spec.pop("learners", {})}
    policy = {"preRunningDeadlineSeconds": 150, "backoff": {"limit": 1}, **spec.pop("policy", {})}
    task["spec"] |= {"rounds": 2, "learners": learners, "policy": policy, **spec}
    return task


def patch(lab: Namespace, task: str, spec: Manifest) -> None:
    lab.kubectl("patch", "ctask", task, "--type=merge", "-p", json.dumps({"spec": spec}))


def wait_condition(lab: Namespace, task: str, condition: str, *, seconds: int) -> None:
    wait = ("wait", f"--for=condition={condition}", f"ctask/{task}", f"--timeout={seconds}s")
    lab.kubectl(*wait, seconds=seconds + 10)


def condition(lab: Namespace, task: str, kind: str) -> Manifest:
    found = lab.get("ctask", task)
    assert found is not None, f"{task} is gone"
    return {one["type"]: one for one in found.get("status", {}).get("conditions", [])}.get(kind, {})


def told(lab: Namespace, task: str, kind: str, reason: str, words: str = "") -> Callable[[], str | None]:
    """Look whether a condition has this reason and a pattern finds its words in the message, and give that."""

    def look() -> str | None:
        found = condition(lab, task, kind)
        assert found.get("reason") == reason and re.search(words, found["message"], flags=re.DOTALL), found
        return str(found["message"])

    return look


def test_it_stands_still_and_goes_on_where_it_was(lab: Namespace, system: Namespace) -> None:
    lab.apply(long_task("still"))
    wait_for("three rounds", lambda: lab.rounds_decided("still") >= 3, seconds=180)
    claim = lab.get("pvc", "still-coordinator")
    patch(lab, "still", {"suspend": True})
    wait_condition(lab, "still", "Suspended", seconds=240)
    assert lab.uids(f"{TASK}=still") == {}
    left = volume_of(lab, system, "still")
    decided = len(left["rounds"])
    assert 3 <= decided < ROUNDS, "the task was over before it stood still"
    all_rounds_stand_once(left, decided)
    # Now, and only now, what its pods ask of a node may change.
    patch(lab, "still", {"coordinator": {"resources": {"requests": {"memory": "150Mi"}}}, "suspend": False})
    wait_for("more rounds", lambda: lab.rounds_decided("still") > decided, seconds=180)

    def logged() -> bool:
        log = lab.kubectl("logs", "still-coordinator")
        assert f"going on after round {decided} of {ROUNDS}" in log
        assert re.search(rf"round {decided + 1}/{ROUNDS}:", log), "the round that it was in"
        return True

    wait_for("word of it", logged, seconds=60)  # a round has its line when all have accepted it
    coordinator, same = lab.get("pod", "still-coordinator"), lab.get("pvc", "still-coordinator")
    assert coordinator and coordinator["spec"]["containers"][0]["resources"]["requests"]["memory"] == "150Mi"
    assert claim and same and same["metadata"]["uid"] == claim["metadata"]["uid"]
    completes_with_all_rounds(lab, system, "still")


def test_created_suspended_resumed_and_deleted_in_its_time(lab: Namespace, system: Namespace) -> None:
    lab.apply(small_task("queued", suspend=True, policy={"ttlSecondsAfterFinished": 15, "cleanPods": "All"}))
    wait_condition(lab, "queued", "Suspended", seconds=120)
    assert lab.left_of("queued") == []
    patch(lab, "queued", {"suspend": False})
    wait_condition(lab, "queued", "Complete", seconds=300)
    wait_for("no pod of queued", lambda: not lab.uids(f"{TASK}=queued"), seconds=180)
    wait_for("no task queued", lambda: lab.get("ctask", "queued") is None, seconds=180)
    wait_for("nothing left of queued", lambda: not lab.left_of("queued"), seconds=240)


def overridden(*, volumes: list[Manifest] | None = None, **container: Any) -> Manifest:
    spec = {"containers": [{"name": "learner", **container}], "volumes": volumes or []}
    return {"podOverrides": {"spec": spec}}


STUCK: dict[str, tuple[Manifest, str, str]] = {
    "image": ({"image": "registry.invalid/none:1"}, "ImageUnavailable", r"image-learner-0: ImagePullBackOff: .*none:1"),
    "gpus": ({"gpus": {"count": 64}}, "Unschedulable", r"gpus-learner-0: Unschedulable: .*Insufficient nvidia.com/gpu"),
    "config": (
        overridden(env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}]),
        "ContainerNotCreated",
        r'config-learner-0: CreateContainerConfigError: secret "absent" not found',
    ),
    "mount": (
        overridden(
            volumes=[{"name": "x", "secret": {"secretName": "absent"}}],
            volumeMounts=[{"name": "x", "mountPath": "/x"}],
        ),
        "ContainerNotCreated",
        r'mount-learner-0: FailedMount: .*secret "absent" not found',
    ),
}
ENDED: dict[str, tuple[Manifest, str, str]] = {
    "memory": (
        {"resources": {"limits": {"memory": "24Mi"}}},
        "BackoffLimitExceeded",
        r"memory-learner-0: given up after crash 2 in a row; last: .*OOMKilled, exit code 137",
    ),
    "crash": (
        overridden(env=[{"name": "PYTHONHOME", "value": "/nowhere"}]),
        "BackoffLimitExceeded",
        r"crash-learner-0: given up after crash 2 in a row; last: .*exit code 1: \S",
    ),
    "module": (
        {"imports": ["nothing_of_that_name"]},
        "ImportFailed",
        r"module-learner-0: --import nothing_of_that_name failed: ModuleNotFoundError",
    ),
}


def test_pods_that_cannot_start_say_why_in_kubernetes_own_words(lab: Namespace, system: Namespace) -> None:
    for name, (learners, _, _) in {**STUCK, **ENDED}.items():
        lab.apply(small_task(name, learners=learners))
    for name, (_, reason, words) in STUCK.items():
        wait_for(f"{name}: {reason}", told(lab, name, "LearnersReady", reason, words), seconds=180)
    for name, (_, reason, words) in ENDED.items():
        message = wait_for(f"{name}: {reason}", told(lab, name, "Failed", reason), seconds=300)
        assert re.search(words, message, flags=re.DOTALL), message
        wait_for(f"no pod of {name}", lambda name=name: not lab.uids(f"{TASK}={name}"), seconds=180)
    # The rest would end with its deadline, in the same words; that takes minutes, so one stands for all.
    message = wait_for("the deadline", told(lab, "image", "Failed", "BelowQuorum"), seconds=300)
    assert re.search(STUCK["image"][2], message, flags=re.DOTALL), message
    for name in (*STUCK, *ENDED):
        gone(lab, name)


def test_a_volume_that_is_lost_ends_the_task(lab: Namespace, system: Namespace) -> None:
    task = long_task("lost-volume")
    task["spec"]["rounds"] = ENDLESS
    lab.apply(task)
    wait_for("three rounds", lambda: lab.rounds_decided("lost-volume") >= 3, seconds=180)
    lab.kubectl("delete", "pvc", "lost-volume-coordinator", "--wait=false")
    decided = lab.rounds_decided("lost-volume")
    wait_for("more rounds", lambda: lab.rounds_decided("lost-volume") > decided, seconds=120)
    lab.kubectl("delete", "pod", "lost-volume-coordinator", "--wait=false")
    message = wait_for("the end", told(lab, "lost-volume", "Failed", "VolumeLost"), seconds=240)
    assert "the volume claim lost-volume-coordinator" in message
    wait_for("no pod", lambda: not lab.uids(f"{TASK}=lost-volume"), seconds=180)
    gone(lab, "lost-volume")


@pytest.fixture
def node(lab: Namespace) -> Any:
    """The node of a cluster that has one, which takes pods again afterwards."""
    names = run("kubectl", "get", "nodes", "-o", "name").split()
    if len(names) != 1:
        pytest.skip("a drained task goes to another node here: no pod waits for the one that is drained")
    name = names[0].removeprefix("node/")
    yield name
    run("kubectl", "uncordon", name)


def test_a_drained_node_costs_time_and_no_round(lab: Namespace, system: Namespace, node: str) -> None:
    lab.apply(long_task("drained"))
    wait_for("three rounds", lambda: lab.rounds_decided("drained") >= 3, seconds=180)
    selector = f"--pod-selector={TASK}=drained"
    drain = ("kubectl", "drain", node, selector, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
    run(*drain, seconds=270)
    words = r"node\(s\) were unschedulable"
    wait_for("no room", told(lab, "drained", "LearnersReady", "Unschedulable", words), seconds=180)
    wait_for("word that nothing runs", lambda: lab.get("ctask", "drained")["status"]["phase"] == "Pending", seconds=60)
    run("kubectl", "uncordon", node)
    completes_with_all_rounds(lab, system, "drained")
