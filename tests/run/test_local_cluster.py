"""LocalCluster plays a cluster: volumes, objects made once and deleted exactly, a task and its status, ports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_ports import LoopbackPorts
from collective_operator.cluster.protocol import ClusterError, TaskKey

from .pods import TASK, alive, pid_of, pod, until

pytestmark = pytest.mark.usefixtures("program")


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
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
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


def test_a_reserved_port_is_nobody_elses_and_still_ours() -> None:
    ports = LoopbackPorts()
    reserved = {ports.reserve() for _ in range(50)}
    assert len(reserved) == 50
    server = subprocess.run(
        [sys.executable, "-c", "import http.server, sys\n"
         "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.BaseHTTPRequestHandler)\n"
         "print('listens')", str(min(reserved))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert server.stdout == "listens\n", server.stderr
    ports.close()
