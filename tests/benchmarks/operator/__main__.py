"""``python -m tests.benchmarks.operator``: the operator with a thousand tasks, on a real API server.

Pods exist and "run" by kwok's word; the API server, etcd, the garbage collector and the operator are the real ones.
TASKS says how many tasks (1000), SECONDS how long the steady state is watched (60).
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Row, report
from tests.benchmarks.operator.world import TASK_LABEL, Api, Coordinators, api_of, own_kilobytes, plane, task
from tests.cluster.playground import Operator

from collective_operator.api import parse_task
from collective_operator.desired import NetworkRules, Platform, desired_children
from collective_operator.desired.credentials import credentials

TASKS = int(os.environ.get("TASKS", "1000"))
SECONDS = float(os.environ.get("SECONDS", "60"))
LEARNERS = 8
DEATHS = 100
BOUND_S = 600

Manifest = dict[str, Any]


async def until(check: Callable[[], Awaitable[bool]], *, every: float, what: str) -> float:
    """Wait, within bounds, and tell when it came true."""
    end = time.monotonic() + BOUND_S
    while time.monotonic() < end:
        if await check():
            return time.monotonic()
        await asyncio.sleep(every)
    raise AssertionError(f"{what}: not within {BOUND_S} s")


async def floor(api: Api) -> float:
    """Create the children of as many tasks with a bare client that knows them already; the seconds that it took."""
    namespace = await api.namespace("floor")
    platform = Platform(learner_image="learner", coordinator_image="operator", network=NetworkRules())
    children: list[Manifest] = []
    for number in range(TASKS):
        made = task(namespace, f"task-{number}", learners=LEARNERS)
        made["metadata"]["uid"] = f"uid-{number}"
        parsed = parse_task(made)
        children += [child.build() for child in desired_children(parsed, platform)]
        held = list(credentials(parsed, platform))
        children += [_secret(metadata) for metadata in (held[0].authority, *(each.metadata for each in held))]
    for child in children:
        child["metadata"].pop("ownerReferences")  # nobody owns these, and the garbage collector would take them
    started = time.monotonic()
    tasks = [task(namespace, f"task-{number}", learners=LEARNERS) for number in range(TASKS)]
    await asyncio.gather(*(api.create(made) for made in tasks))
    await asyncio.gather(*(api.create(child) for child in children))
    took = time.monotonic() - started
    await api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=0")
    await api.request("DELETE", f"/apis/collectivelearning.dev/v1alpha1/namespaces/{namespace}/collectivetasks")

    async def gone() -> bool:
        return await api.count_pods(namespace) == 0

    await until(gone, every=0.5, what="an empty namespace")
    return took


def _secret(metadata: Manifest) -> Manifest:
    """A Secret as large as one with a key and two certificates."""
    data = {"tls.crt": "A" * 1000, "tls.key": "A" * 320, "ca.crt": "A" * 800}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": dict(metadata), "data": data}


async def create_all(api: Api, namespace: str) -> float:
    """Create the tasks at once; the seconds until all their pods exist."""
    started = time.monotonic()
    await asyncio.gather(*(api.create(task(namespace, f"task-{number}", learners=LEARNERS)) for number in range(TASKS)))

    async def complete() -> bool:
        return await api.count_pods(namespace) == TASKS * (LEARNERS + 1)

    return await until(complete, every=0.25, what="all pods") - started


async def settled(operator: Operator) -> None:
    """Wait until the operator writes nothing for some seconds."""
    last = -1.0

    async def quiet() -> bool:
        nonlocal last
        before, last = last, await asyncio.to_thread(operator.requests, "create", "update", "patch", "delete")
        return before == last

    await until(quiet, every=5, what="a steady state")


async def steady(operator: Operator) -> tuple[float, float]:
    """Requests a second to the API server in a steady state, and how many of them write."""
    every = ("get", "list", "watch", "create", "update", "patch", "delete")
    before = [await asyncio.to_thread(operator.requests, *verbs) for verbs in (every, every[3:])]
    await asyncio.sleep(SECONDS)
    after = [await asyncio.to_thread(operator.requests, *verbs) for verbs in (every, every[3:])]
    return (after[0] - before[0]) / SECONDS, (after[1] - before[1]) / SECONDS


async def reactions(api: Api, namespace: str) -> list[float]:
    """Delete learners one after the other, and take the time until each is there anew."""
    came: dict[str, asyncio.Future[float]] = {}

    async def look() -> None:
        async for kind, pod in api.watch_pods(namespace):
            waiting = came.get(pod["metadata"]["name"])
            if kind == "ADDED" and waiting and not waiting.done():
                waiting.set_result(time.monotonic())

    looking = asyncio.create_task(look())
    await asyncio.sleep(1)
    seconds = []
    chance = random.Random(0)
    for number in chance.sample(range(TASKS), min(DEATHS, TASKS)):
        name = f"task-{number}-learner-{chance.randrange(LEARNERS)}"
        came[name] = asyncio.get_running_loop().create_future()
        gone = time.monotonic()
        await api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0")
        seconds.append(await asyncio.wait_for(came[name], BOUND_S) - gone)
    looking.cancel()
    await asyncio.wait({looking})
    return seconds


async def one_task(api: Api, namespace: str, name: str, *, learners: int) -> float:
    """Create one task; the seconds until all its pods exist."""
    started = time.monotonic()
    await api.create(task(namespace, name, learners=learners))

    async def complete() -> bool:
        return await api.count_pods(namespace, f"{TASK_LABEL}%3D{name}") == learners + 1

    return await until(complete, every=0.02, what=f"pods of {name}") - started


async def restarted(operator: Operator) -> tuple[float, float]:
    """Kill the operator; the seconds until the next answers, and until it has looked at every task."""
    operator.kill()
    began = time.monotonic()
    await asyncio.to_thread(operator.start)
    answers = time.monotonic() - began

    def turns() -> float:
        lines = operator.read("/metrics").splitlines()
        (count,) = [line for line in lines if line.startswith('collective_reconcile_total{result="success"}')]
        return float(count.rsplit(" ", 1)[1])

    async def looked() -> bool:
        return await asyncio.to_thread(turns) >= TASKS

    return answers, await until(looked, every=0.1, what="a look at every task") - began


async def measured(folder: Path) -> list[Row]:
    """Take all figures."""
    rows: list[Row] = []

    def row(name: str, ours: float, baseline: float, unit: str, bar: str) -> None:
        rows.append(Row(name, ours, baseline, unit, ours / baseline if baseline else float("inf"), bar))
        print(f"{name}: {ours:.4g} {unit}", flush=True)

    with plane(folder) as started:
        operator = Operator(started, folder / "operator", options=("--poll-seconds", "5"))
        async with api_of(started) as api:
            bare = await floor(api)
            print(f"bare client: {bare:.1f} s", flush=True)
            namespace = await api.namespace("tasks")
            coordinators = Coordinators()
            following = asyncio.create_task(coordinators.follow(api, namespace))
            await asyncio.sleep(1)
            try:
                await asyncio.to_thread(operator.start)
                row("32 learners: all pods exist", await one_task(api, namespace, "wide", learners=31), 1, "s", "<= 1")
                await api.request(
                    "DELETE", f"/apis/collectivelearning.dev/v1alpha1/namespaces/{namespace}/collectivetasks/wide"
                )

                async def gone() -> bool:
                    return await api.count_pods(namespace) == 0

                await until(gone, every=0.2, what="the pods of a deleted task to go")
                row(f"{TASKS} tasks: all pods exist", await create_all(api, namespace), bare, "s", "<= 1.5")
                await settled(operator)
                row("  memory of the operator", own_kilobytes(operator.process.pid, "VmRSS") / 1e3, 300, "MB", "<= 1")
                every, writes = await steady(operator)
                row("  requests in a steady state", every, 1, "1/s", "<= 1")
                row("  of them writes", writes, 1, "1/s", "0")
                seconds = sorted(await reactions(api, namespace))
                row("  a pod's death to its successor, median", statistics.median(seconds), 1, "s", "")
                row("  a pod's death to its successor, p99", seconds[int(0.99 * len(seconds))], 1, "s", "<= 1")
                alone = await one_task(api, namespace, "small", learners=2)
                big = asyncio.create_task(one_task(api, namespace, "big", learners=255))
                await asyncio.sleep(0.05)
                row(
                    "  a small task beside one of 255 learners",
                    await one_task(api, namespace, "tiny", learners=2),
                    alone,
                    "s",
                    "",
                )
                await big
                answers, looked = await restarted(operator)
                row("  a new operator answers", answers, 2, "s", "<= 1")
                row("  a new operator has looked at every task", looked, 10, "s", "<= 1")
                row(
                    "  memory of the operator, peak",
                    own_kilobytes(operator.process.pid, "VmHWM") / 1e3,
                    300,
                    "MB",
                    "<= 1",
                )
            finally:
                operator.stop()
                following.cancel()
                await asyncio.wait({following})
                await coordinators.close()
    return rows


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measured(Path(folder)))
    report(rows, path=Path("dist/bench-operator.json"))


if __name__ == "__main__":
    main()
