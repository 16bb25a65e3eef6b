"""A program that does in a pod what its arguments say, pods that run it, and how to look at them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_pod import PodSettings
from collective_operator.cluster.local_process import Guard
from collective_operator.cluster.protocol import TaskEvent

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


def local_cluster(
    directory: Path,
    guard: Guard,
    settings: PodSettings,
    *,
    learners: int = 1,
    on_event: Callable[[TaskEvent], object] = lambda _: None,
) -> LocalCluster:
    return LocalCluster(
        TASK,
        directory=directory,
        coordinator_port=1,
        learners=learners,
        guard=guard,
        on_event=on_event,
        settings=settings,
    )


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
    """Wait until a pod's manifest is as asked, for at most 60 s, and return it."""
    last: Any = None
    async with asyncio.timeout(60):
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


def gone(pid: int, within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def pid_of(cluster: LocalCluster, word: str = "hello from", name: str = "digits-learner-0") -> int:
    """Read a process id from the last such line of a pod's log."""
    async with asyncio.timeout(60):
        while True:
            log = cluster.log_of(name)
            lines = [x for x in (log.read_text().splitlines() if log.exists() else ()) if x.startswith(word)]
            if lines:
                return int(lines[-1].split()[-1])
            await asyncio.sleep(0.02)
