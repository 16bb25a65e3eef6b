"""``python -m tests.benchmarks.operator``: the operator with a thousand tasks, on a real API server.

Pods exist and "run" by kwok's word; the API server, etcd, the garbage collector and the operator are the real ones, and
the operator leads by a Lease, as it is installed.  The bare client, to compare with, has a control plane of its own, as
new as the operator's, and has its turn before the operator and after it: machines have their fast and slow minutes, and
the mean of both is what the operator is held against.  TASKS says how many tasks (1000), SECONDS how long the steady
state is watched (60).
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import Row, report
from tests.benchmarks.operator.floor import Floor, floor
from tests.benchmarks.operator.world import (
    LEARNERS,
    TASK_LABEL,
    Api,
    Coordinators,
    api_of,
    in_parallel,
    own_kilobytes,
    plane,
    task,
)
from tests.cluster.playground import Operator

TASKS = int(os.environ.get("TASKS", "1000"))
SECONDS = float(os.environ.get("SECONDS", "60"))
DEATHS = 100
BOUND_S = 900
RESTS = 10
OPTIONS = ("--poll-seconds", "5", "--leader-election", "--lease-namespace", "default")
READS = ("get", "list", "watch")


async def until(check: Callable[[], Awaitable[bool]], *, every: float, what: str) -> float:
    """Wait, within bounds, and tell when it came true."""
    end = time.monotonic() + BOUND_S
    while time.monotonic() < end:
        if await check():
            return time.monotonic()
        await asyncio.sleep(every)
    raise AssertionError(f"{what}: not within {BOUND_S} s")


async def create_all(api: Api, namespace: str, *, at_once: int) -> float:
    """Create the tasks at once; the seconds until all their pods exist."""
    made = [task(namespace, f"task-{number}", learners=LEARNERS) for number in range(TASKS)]
    started = time.monotonic()
    await in_parallel([partial(api.create, each) for each in made], at_once=at_once)

    async def complete() -> bool:
        return await api.count_pods(namespace) == TASKS * (LEARNERS + 1)

    return await until(complete, every=1, what="all pods") - started  # to count thousands of pods is work, too


async def requests(operator: Operator) -> Counter[tuple[str, str]]:
    """Count the requests that the operator has sent, by verb and resource."""
    told: Counter[tuple[str, str]] = Counter()
    for line in (await asyncio.to_thread(operator.read, "/metrics")).splitlines():
        if line.startswith("collective_k8s_api_requests_total{"):
            labels, _, value = line.partition("{")[2].rpartition("} ")
            of = dict(label.split("=") for label in labels.replace('"', "").split(","))
            told[of["verb"], of["resource"]] += round(float(value))
    return told


def writes(told: Counter[tuple[str, str]]) -> int:
    """Count those that write, but for the Lease's renewals."""
    return sum(count for (verb, resource), count in told.items() if verb not in READS and resource != "leases")


async def settled(operator: Operator) -> None:
    """Wait until the operator writes nothing for longer than a task rests that has started among many."""
    last = -1

    async def quiet() -> bool:
        nonlocal last
        before, last = last, writes(await requests(operator))
        return before == last

    await until(quiet, every=20, what="a steady state")


async def steady(operator: Operator) -> tuple[float, float]:
    """Requests a second to the API server in a steady state, and how many of them write about tasks."""
    before = await requests(operator)
    await asyncio.sleep(SECONDS)
    sent = await requests(operator) - before
    return sent.total() / SECONDS, writes(sent) / SECONDS


async def reactions(api: Api, namespace: str) -> list[float]:
    """Delete learners one after the other, and take the time until each is there anew."""
    came: dict[str, asyncio.Future[float]] = {}

    async def look() -> None:
        async for kind, pod in api.watch_pods(namespace, "learner"):
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
    """End the operator; the seconds until the next answers, and until it has looked at every task."""
    operator.stop()
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
        print(f"{time.strftime('%T')} {name}: {ours:.4g} {unit}", flush=True)

    async def bare_client(turn: str, *, at_once: int | None = None) -> Floor:
        with plane(folder / f"bare-{turn}") as started:
            async with api_of(started) as api:
                found = await floor(api, tasks=TASKS, at_once=at_once)
        print(f"{time.strftime('%T')} bare client, {turn}: {found.seconds:.1f} s, {found.at_once} at once", flush=True)
        return found

    bare = await bare_client("before")
    with plane(folder / "ours") as started:
        operator = Operator(started, folder / "operator", options=OPTIONS)
        async with api_of(started) as api:
            namespace = await api.namespace("tasks")
            coordinators = Coordinators()
            following = asyncio.create_task(coordinators.follow(api, namespace))
            await asyncio.sleep(1)
            try:
                await asyncio.to_thread(operator.start)
                row("32 pods of one task exist", await one_task(api, namespace, "wide", learners=31), 1, "s", "<= 1")
                row(
                    "a small task's pods exist",
                    alone := await one_task(api, namespace, "small", learners=2),
                    1,
                    "s",
                    "",
                )
                big = asyncio.create_task(one_task(api, namespace, "big", learners=255))
                await asyncio.sleep(0.05)
                beside = await one_task(api, namespace, "tiny", learners=2)
                row("a small task's pods exist, beside a start of 255 learners", beside, alone, "s", "")
                await big
                await api.remove_all(namespace)
                await asyncio.sleep(RESTS)  # the garbage collector has still to find out that nothing is left
                took = await create_all(api, namespace, at_once=bare.at_once)
                place = len(rows)
                await settled(operator)
                row("  memory of the operator", own_kilobytes(operator.process.pid, "VmRSS") / 1e3, 300, "MB", "<= 1")
                row("    at its peak", own_kilobytes(operator.process.pid, "VmHWM") / 1e3, 300, "MB", "<= 1")
                every, written = await steady(operator)
                row("  requests in a steady state", every, 1, "1/s", "<= 1")
                row("    that write about tasks", written, 1, "1/s", "0")
                seconds = sorted(await reactions(api, namespace))
                row("  a pod's death to its successor, median", statistics.median(seconds), 1, "s", "")
                row("    p99", seconds[int(0.99 * len(seconds))], 1, "s", "<= 1")
                answers, looked = await restarted(operator)
                row("  a new operator answers", answers, 2, "s", "<= 1")
                row("  a new operator has looked at every task", looked, 10, "s", "<= 1")
                row("    its memory", own_kilobytes(operator.process.pid, "VmHWM") / 1e3, 300, "MB", "<= 1")
            finally:
                operator.stop()
                following.cancel()
                await asyncio.wait({following})
    again = await bare_client("after", at_once=bare.at_once)
    row(f"{TASKS} tasks: all pods exist", took, (bare.seconds + again.seconds) / 2, "s", "<= 1.5")
    rows.insert(place, rows.pop())  # above what else there is to say of these tasks
    return rows


def main() -> None:
    """Measure and report."""
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measured(Path(folder)))
    report(rows, path=Path("dist/bench-operator.json"))


if __name__ == "__main__":
    main()
