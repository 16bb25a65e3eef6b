"""No process outlives its run: not a deaf one, not its children, not when the parent is killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collective_operator.cluster.local_pod import PodSettings
from collective_operator.cluster.local_process import Guard
from collective_operator.cluster.protocol import TaskEvent

from .pods import TASK, alive, gone, local_cluster, pid_of, pod

pytestmark = pytest.mark.usefixtures("program")


async def test_a_deaf_process_and_its_children_end_with_the_cluster(tmp_path: Path) -> None:
    events: list[TaskEvent] = []
    guard = Guard()
    cluster = local_cluster(tmp_path / "run", guard, PodSettings(grace_s=0.3), learners=64, on_event=events.append)
    cluster.emit(TASK, [TaskEvent(type="Normal", reason="Accepted", message="m")])
    await cluster.create(pod("--deaf=1", "--grandchild=1"))
    child, grandchild = await pid_of(cluster), await pid_of(cluster, "grandchild")
    await asyncio.wait_for(cluster.close(), 60)
    guard.close()
    assert gone(child) and gone(grandchild)
    assert [event.reason for event in events] == ["Accepted"]


async def test_insisting_cuts_every_grace_short(tmp_path: Path) -> None:
    guard = Guard()
    cluster = local_cluster(tmp_path / "run", guard, PodSettings(grace_s=600))
    manifest = pod("--deaf=1")
    manifest["spec"]["terminationGracePeriodSeconds"] = 600
    await cluster.create(manifest)
    child = await pid_of(cluster)
    closing = asyncio.create_task(cluster.close())
    await asyncio.sleep(0.2)
    assert alive(child) and not closing.done()
    cluster.kill()
    await asyncio.wait_for(closing, 60)
    guard.close()
    assert gone(child)


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
        deadline = time.monotonic() + 60
        while not (log.exists() and "grandchild" in log.read_text()):
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.02)
        pids = [int(line.split()[-1]) for line in log.read_text().splitlines() if not line.startswith("---")]
        assert len(pids) == 2 and all(map(alive, pids))
    finally:
        parent.kill()
        parent.wait()
    assert all(map(gone, pids))
