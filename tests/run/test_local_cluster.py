"""LocalCluster plays a cluster: statuses as a kubelet writes them, restarts, and no process that outlives its run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_pod import Backoff, PodSettings
from collective_operator.cluster.local_ports import LoopbackPorts
from collective_operator.cluster.local_process import Guard
from collective_operator.cluster.protocol import ClusterError, TaskEvent, TaskKey

TASK = {"metadata": {"name": "digits", "namespace": "default", "uid": "u-1", "generation": 1}, "spec": {}}
PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
arguments = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
if "deaf" in arguments:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("hello from", os.getpid(), flush=True)
if "words" in arguments:
    pathlib.Path(arguments["termination-log"]).write_text(arguments["words"])
if "read" in arguments:
    print("read", pathlib.Path(arguments["read"]).read_text(), flush=True)
if "write" in arguments:
    pathlib.Path(arguments["write"]).write_text(repr(sorted(os.environ.items())))
if "grandchild" in arguments:
    print("grandchild", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
if "port" in arguments:
    import http.server
    http.server.HTTPServer(("127.0.0.1", int(arguments["port"])), http.server.SimpleHTTPRequestHandler).serve_forever()
if "exit" in arguments:
    sys.exit(int(arguments["exit"]))
if "raise" in arguments:
    raise RuntimeError(arguments["raise"])
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stand_in.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    guard = Guard()
    cluster = LocalCluster(
        TASK,
        directory=tmp_path / "run",
        coordinator_port=1,
        learners=1,
        guard=guard,
        on_event=lambda event: None,
        settings=PodSettings(backoff=Backoff(first_s=0.05, ceiling_s=0.2), probe_period_s=0.02, grace_s=1),
    )
    yield cluster
    await asyncio.wait_for(cluster.close(), 20)
    guard.close()


def pod(*arguments: str, name: str = "digits-learner-0", policy: str = "Always", **container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": policy,
            "containers": [
                {"name": "learner", "command": ["python", "-m", "stand_in"], "args": [*arguments], **container}
            ],
        },
    }


async def until(cluster: LocalCluster, holds: Callable[[dict[str, Any]], Any], name: str = "digits-learner-0") -> Any:
    """Wait until a pod's manifest is as asked, for at most 20 s, and return it."""
    last: Any = None
    async with asyncio.timeout(20):
        while True:
            pods = (await cluster.observe(TASK)).pods
            last = pods.get(name)
            if last is not None and holds(last):
                return last
            await cluster.changed(0.5)


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["status"]["containerStatuses"][0]


def is_ready(manifest: dict[str, Any]) -> bool:
    return {c["type"]: c["status"] for c in manifest["status"]["conditions"]}["Ready"] == "True"


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def gone(pid: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def pid_of(cluster: LocalCluster, word: str = "hello from", name: str = "digits-learner-0") -> int:
    """Read a process id from the last such line of a pod's log."""
    async with asyncio.timeout(20):
        while True:
            log = cluster.log_of(name)
            lines = [x for x in (log.read_text().splitlines() if log.exists() else ()) if x.startswith(word)]
            if lines:
                return int(lines[-1].split()[-1])
            await asyncio.sleep(0.02)


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


async def test_volumes_are_folders_of_the_run(cluster: LocalCluster, tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "digits-coordinator"},
        "data": {"a.json": "{}"},
    }
    await cluster.create(config)
    manifest = pod(
        "--read=/etc/collective/a.json",
        "--write=/var/lib/collective/sub.txt",
        name="digits-coordinator",
        env=[{"name": "FROM_POD", "value": "yes"}],
        volumeMounts=[
            {"name": "state", "mountPath": "/var/lib/collective"},
            {"name": "config", "mountPath": "/etc/collective"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    )
    manifest["spec"]["volumes"] = [
        {"name": "config", "configMap": {"name": "digits-coordinator"}},
        {"name": "state", "persistentVolumeClaim": {"claimName": "digits-coordinator"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    await cluster.create(manifest)
    written = tmp_path / "run" / "sub.txt"
    async with asyncio.timeout(20):
        while True:
            if written.exists() and written.read_text():
                break
            await asyncio.sleep(0.02)
    assert "read {}" in (tmp_path / "run" / "logs" / "coordinator.log").read_text()
    environment = written.read_text()
    assert "('FROM_POD', 'yes')" in environment
    assert f"('OMP_NUM_THREADS', '{os.cpu_count()}')" in environment, "one learner may use every core"


async def test_creating_twice_is_one_and_deleting_is_exact(cluster: LocalCluster) -> None:
    await cluster.create(pod())
    first = await until(cluster, lambda p: p["status"]["phase"] == "Running")
    pid = await pid_of(cluster)
    await cluster.create(pod())
    assert (await cluster.observe(TASK)).pods["digits-learner-0"]["metadata"]["uid"] == first["metadata"]["uid"]

    other = {**first, "metadata": {**first["metadata"], "uid": "somebody-else"}}
    await cluster.delete(other)
    assert "deletionTimestamp" not in (await cluster.observe(TASK)).pods["digits-learner-0"]["metadata"]
    assert alive(pid)

    await cluster.delete(first)
    assert "deletionTimestamp" in (await cluster.observe(TASK)).pods["digits-learner-0"]["metadata"]
    async with asyncio.timeout(20):
        while (await cluster.observe(TASK)).pods:
            await cluster.changed(0.5)
    assert not alive(pid)


async def test_a_config_map_is_replaced_in_place_and_exactly(cluster: LocalCluster, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a.json": "{}"}}
    await cluster.create(config)
    there = (await cluster.observe(TASK)).config_maps["c"]
    await cluster.update({**there, "data": {"a.json": "[1]"}})
    assert (await cluster.observe(TASK)).config_maps["c"] == {**there, "data": {"a.json": "[1]"}}
    folder = tmp_path / "run" / ".run" / "c"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.json": "[1]"}
    for other in ({**there, "metadata": {"name": "c", "uid": "?"}}, {**there, "metadata": {"name": "d", "uid": "?"}}):
        with pytest.raises(ClusterError):
            await cluster.update(other)


async def test_the_task_and_its_status(cluster: LocalCluster) -> None:
    assert await cluster.get_task(TaskKey("default", "other")) is None
    await cluster.update_status(TASK, {"phase": "Running"})
    task = await cluster.get_task(TaskKey("default", "digits"))
    assert task is not None and task["status"] == {"phase": "Running"}
    task["status"]["phase"] = "changed by the reader"
    again = await cluster.get_task(TaskKey("default", "digits"))
    assert again is not None and again["status"] == {"phase": "Running"}


async def test_a_deaf_process_and_its_children_end_with_the_cluster(tmp_path: Path) -> None:
    events: list[TaskEvent] = []
    guard = Guard()
    cluster = LocalCluster(
        TASK,
        directory=tmp_path / "run",
        coordinator_port=1,
        learners=64,
        guard=guard,
        on_event=events.append,
        settings=PodSettings(grace_s=0.3),
    )
    await cluster.emit(TASK, [TaskEvent(type="Normal", reason="Accepted", message="m")])
    await cluster.create(pod("--deaf=1", "--grandchild=1"))
    child, grandchild = await pid_of(cluster), await pid_of(cluster, "grandchild")
    await asyncio.wait_for(cluster.close(), 20)
    guard.close()
    assert gone(child) and gone(grandchild)
    assert [event.reason for event in events] == ["Accepted"]


async def test_insisting_cuts_every_grace_short(tmp_path: Path) -> None:
    guard = Guard()
    cluster = LocalCluster(
        TASK,
        directory=tmp_path / "run",
        coordinator_port=1,
        learners=1,
        guard=guard,
        on_event=lambda event: None,
        settings=PodSettings(grace_s=600),
    )
    manifest = pod("--deaf=1")
    manifest["spec"]["terminationGracePeriodSeconds"] = 600
    await cluster.create(manifest)
    child = await pid_of(cluster)
    closing = asyncio.create_task(cluster.close())
    await asyncio.sleep(0.2)
    assert alive(child) and not closing.done()
    cluster.kill()
    await asyncio.wait_for(closing, 20)
    guard.close()
    assert gone(child)


async def test_pods_that_a_laptop_cannot_run_are_refused(cluster: LocalCluster) -> None:
    two = pod()
    two["spec"]["containers"] *= 2
    with pytest.raises(ValueError, match="exactly one container"):
        await cluster.create(two)
    shell = pod()
    shell["spec"]["containers"][0]["command"] = ["sh", "-c", "true"]
    with pytest.raises(ValueError, match=r"\['sh', '-c', 'true'\] is not python -m MODULE"):
        await cluster.create(shell)


PARENT = """
import asyncio, json, sys
from pathlib import Path
from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_process import Guard

async def main():
    task, directory, pod = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    cluster = LocalCluster(task, directory=directory, coordinator_port=1, learners=1, guard=Guard(), on_event=print)
    await cluster.create(pod)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_no_process_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    manifest = pod("--deaf=1", "--grandchild=1")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, json.dumps(TASK), str(directory), json.dumps(manifest)])
    try:
        log = directory / "logs" / "learner-0.log"
        deadline = time.monotonic() + 20
        while not (log.exists() and "grandchild" in log.read_text()):
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.02)
        pids = [int(line.split()[-1]) for line in log.read_text().splitlines() if not line.startswith("---")]
        assert len(pids) == 2 and all(map(alive, pids))
    finally:
        parent.kill()
        parent.wait()
    assert all(map(gone, pids))


def test_a_reserved_port_is_nobody_elses_and_still_ours() -> None:
    ports = LoopbackPorts()
    reserved = {ports.reserve() for _ in range(50)}
    assert len(reserved) == 50
    server = subprocess.run(
        [sys.executable, "-c", "import http.server, sys\n"
         "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.BaseHTTPRequestHandler)\n"
         "print('listens')", str(min(reserved))],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert server.stdout == "listens\n", server.stderr
    ports.close()


def test_backoff_doubles_to_its_ceiling() -> None:
    backoff = Backoff(first_s=1, ceiling_s=30)
    assert [backoff.delay(deaths) for deaths in range(1, 9)] == [0, 1, 2, 4, 8, 16, 30, 30]
