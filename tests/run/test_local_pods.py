"""LocalCluster's pods: statuses as a kubelet writes them, restarts with their history, and what a laptop refuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_pod import Backoff
from collective_operator.cluster.local_ports import LoopbackPorts

from .pods import TASK, container_of, is_ready, pid_of, pod, until

pytestmark = pytest.mark.usefixtures("program")


async def test_a_running_pod_looks_as_a_kubelet_would_write_it(cluster: LocalCluster) -> None:
    await cluster.create(pod(image="example:1"))
    running = await until(cluster, lambda p: p["status"]["phase"] == "Running" and is_ready(p))
    assert running["metadata"]["uid"] and running["metadata"]["creationTimestamp"].endswith("Z")
    assert running["status"]["podIP"] == "127.0.0.1"
    status = container_of(running)
    assert (status["ready"], status["restartCount"], status["image"]) == (True, 0, "example:1")
    assert status["state"]["running"]["startedAt"].endswith("Z")
    assert status["lastState"] == {}
    assert [c["type"] for c in running["status"]["conditions"]] == [
        "PodScheduled", "Initialized", "ContainersReady", "Ready",
    ]  # fmt: skip


async def test_ready_only_once_the_port_answers(cluster: LocalCluster) -> None:
    ports = LoopbackPorts()
    port = ports.reserve()
    probe = {"httpGet": {"path": "/", "port": "http"}}
    await cluster.create(pod(readinessProbe=probe, ports=[{"name": "http", "containerPort": port}]))
    await until(cluster, lambda p: p["status"]["phase"] == "Running")
    await asyncio.sleep(0.3)
    assert not is_ready((await cluster.observe(TASK)).pods["digits-learner-0"])

    await cluster.create(pod(f"--port={port}", name="digits-learner-1", readinessProbe=probe,
                             ports=[{"name": "http", "containerPort": port}]))  # fmt: skip
    await until(cluster, is_ready, name="digits-learner-1")
    ports.close()


async def test_a_killed_pod_comes_back_with_its_history(cluster: LocalCluster) -> None:
    await cluster.create(pod())
    first = await pid_of(cluster)
    os.kill(first, signal.SIGKILL)
    back = await until(
        cluster, lambda p: container_of(p)["restartCount"] == 1 and "running" in container_of(p)["state"]
    )
    assert container_of(back)["lastState"]["terminated"]["exitCode"] == 137
    assert container_of(back)["lastState"]["terminated"]["reason"] == "Error"


async def test_one_that_always_dies_ends_in_crash_loop_with_its_last_words(cluster: LocalCluster) -> None:
    await cluster.create(pod("--raise=no such data", terminationMessagePolicy="FallbackToLogsOnError"))
    broken = await until(
        cluster, lambda p: container_of(p)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )
    assert not is_ready(broken)
    last = container_of(broken)["lastState"]["terminated"]
    assert last["exitCode"] == 1
    assert last["message"].splitlines()[-1] == "RuntimeError: no such data"
    assert len(last["message"].encode()) <= 2048
    assert last["message"].count("hello from") == 1, "the words of the runs before do not belong to this one"


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [
        ("OnFailure", 0, "Succeeded", False),
        ("Never", 0, "Succeeded", False),
        ("Never", 3, "Failed", False),
        ("OnFailure", 3, "Running", True),
        ("Always", 0, "Running", True),
    ],
)
async def test_restart_policies(cluster: LocalCluster, policy: str, code: int, phase: str, restarts: bool) -> None:
    words = json.dumps({"phase": "Complete"})
    await cluster.create(
        pod("--words=" + words, "--termination-log=/dev/termination-log", f"--exit={code}", policy=policy)
    )
    if restarts:
        seen = await until(cluster, lambda p: container_of(p)["restartCount"] >= 2)
        last = container_of(seen)["lastState"]["terminated"]
    else:
        seen = await until(
            cluster, lambda p: p["status"]["phase"] != "Running" and "terminated" in container_of(p)["state"]
        )
        last = container_of(seen)["state"]["terminated"]
        assert container_of(seen)["restartCount"] == 0
    assert seen["status"]["phase"] == phase
    assert last["exitCode"] == code
    assert last["reason"] == ("Error" if code else "Completed")
    assert last["message"] == words


async def test_pods_that_a_laptop_cannot_run_are_refused(cluster: LocalCluster) -> None:
    two = pod()
    two["spec"]["containers"] *= 2
    with pytest.raises(ValueError, match="exactly one container"):
        await cluster.create(two)
    shell = pod()
    shell["spec"]["containers"][0]["command"] = ["sh", "-c", "true"]
    with pytest.raises(ValueError, match=r"\['sh', '-c', 'true'\] is not python -m MODULE"):
        await cluster.create(shell)


def test_backoff_doubles_to_its_ceiling() -> None:
    backoff = Backoff(first_s=1, ceiling_s=30)
    assert [backoff.delay(deaths) for deaths in range(1, 9)] == [0, 1, 2, 4, 8, 16, 30, 30]
