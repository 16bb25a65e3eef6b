"""Chaos without a node: pods, operators and the API server are killed at random while somebody plays the kubelet.

`make chaos-cluster` runs it for minutes where no KUBECONFIG names a cluster with nodes, which tests/e2e/test_chaos.py
does better: there pods are real, here they are words.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .control_plane import ApiError, ControlPlane, eventually
from .playground import Coordinator, Manifest, Namespace, Operator, manifest
from .test_leadership import Pair

MINUTES = float(os.environ.get("COLLECTIVE_CHAOS_MINUTES") or 0.3)
TASKS = ("one", "two", "three")
ROUNDS = 30 + int(MINUTES * 60)
TICK_S = 0.2
PAUSE_S = (0.2, 3.0)


class Kubelet:
    """Runs what is to run, and has each task's coordinator decide a round now and then, from where its volume says."""

    def __init__(self, namespace: Namespace, coordinators: dict[str, Coordinator]) -> None:
        self._namespace = namespace
        self._coordinators = coordinators
        self._decided = dict.fromkeys(coordinators, 0)
        self._stopped = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(TICK_S):
            try:
                pods = self._namespace.pods()
                for task, coordinator in self._coordinators.items():
                    self._see_to(task, coordinator, {name for name in pods if name.startswith(f"{task}-")}, pods)
            except (OSError, AssertionError, KeyError):
                continue  # no API server, or a pod that went meanwhile

    def _see_to(self, task: str, coordinator: Coordinator, mine: set[str], pods: dict[str, Manifest]) -> None:
        phases = {name: pods[name]["status"]["phase"] for name in mine}
        for name, phase in phases.items():
            if phase == "Pending":
                self._namespace.run_pod(name, address=coordinator.address)
        if len(mine) < 3 or set(phases.values()) != {"Running"}:
            return
        self._decided[task] = min(self._decided[task] + 1, ROUNDS)  # its last pod may go before its end is told
        decided = {"current": self._decided[task], "total": ROUNDS, "accepted": self._decided[task]}
        uid = self._namespace.task(task)["metadata"]["uid"]
        coordinator.say(uid=uid, phase="Running", round=decided)
        if self._decided[task] >= ROUNDS:
            coordinator.say(phase="Complete", reason="RoundsCompleted", message="done")
            self._namespace.end_pod(f"{task}-coordinator", phase="Succeeded", message=json.dumps(coordinator.said))


class Chaos:
    """What is done, and to whom."""

    def __init__(self, plane: ControlPlane, namespace: Namespace, pair: Pair, chance: random.Random) -> None:
        self._plane = plane
        self._namespace = namespace
        self._pair = pair
        self._chance = chance
        self.done: Counter[str] = Counter()

    def deed(self) -> None:
        deeds: list[tuple[int, Callable[[], None]]] = [
            (8, self.delete_a_pod),
            (4, self.evict_a_pod),
            (3, self.kill_an_operator),
            (1, self.kill_all_operators),
            (1, self.kill_the_api_server),
        ]
        ((_, what),) = self._chance.choices(deeds, weights=[weight for weight, _ in deeds])
        what()
        self.done[what.__name__] += 1

    def supervise(self) -> None:
        """Start operators again that have ended, whyever."""
        for operator in self._pair.operators:
            if operator.process.poll() is not None:
                operator.start()

    def _a_pod(self) -> str | None:
        names = sorted(self._namespace.pods())
        return self._chance.choice(names) if names else None

    def delete_a_pod(self) -> None:
        if pod := self._a_pod():
            how = ("--grace-period=0", "--force", "--ignore-not-found")  # the operator may be quicker
            self._plane.kubectl("-n", self._namespace.name, "delete", "pod", pod, *how)

    def evict_a_pod(self) -> None:
        if pod := self._a_pod():
            try:
                self._namespace.set_pod(pod, {"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
            except ApiError as error:
                if error.status != 404:
                    raise

    def kill_an_operator(self) -> None:
        self._chance.choice(self._pair.operators).kill()

    def kill_all_operators(self) -> None:
        for operator in self._pair.operators:
            operator.kill()

    def kill_the_api_server(self) -> None:
        with self._plane.without_api_server():
            time.sleep(self._chance.choice([0, 2, 9]))


@pytest.mark.timeout(MINUTES * 60 + 400)
def test_all_complete_and_nothing_is_left(
    plane: ControlPlane, namespace: Namespace, shared_operator: Operator, tmp_path: Path
) -> None:
    seed = int(os.environ.get("COLLECTIVE_CHAOS_SEED") or random.randrange(2**32))
    print(f"\nSEED={seed} MINUTES={MINUTES:g}; there is no node, and a kubelet that is played")
    shared_operator.stop()
    pair = Pair(namespace, tmp_path)
    chaos = Chaos(plane, namespace, pair, random.Random(seed))
    policy = {"backoff": {"limit": 1000, "initialSeconds": 1, "maxSeconds": 2}}
    with ExitStack() as stack:
        coordinators = {task: stack.enter_context(Coordinator(uid="").serving()) for task in TASKS}
        stack.callback(pair.stop)
        pair.start()
        for task in TASKS:
            namespace.apply(manifest(task, rounds=ROUNDS, policy=policy))
        stack.enter_context(Kubelet(namespace, coordinators).running())
        end = time.monotonic() + MINUTES * 60
        while time.monotonic() < end:
            chaos.deed()
            chaos.supervise()
            time.sleep(chaos._chance.uniform(*PAUSE_S))
        print(f"{sum(chaos.done.values())} deeds: {dict(chaos.done)}")
        began = time.monotonic()

        def complete() -> bool:
            chaos.supervise()
            phases = {task: namespace.status(task).get("phase") for task in TASKS}
            assert "Failed" not in phases.values(), {task: namespace.status(task) for task in TASKS}
            return set(phases.values()) == {"Complete"}

        eventually(complete, timeout=180, every=1, what="that all are complete")
        print(f"calm: all complete after {time.monotonic() - began:.0f} s")
        for task in TASKS:
            assert namespace.status(task)["round"]["current"] == ROUNDS
        # One that was evicted after its task's end stays as it is: it holds nothing.
        over = {"Succeeded", "Failed"}
        eventually(lambda: {pod["status"]["phase"] for pod in namespace.pods().values()} <= over, what="that none runs")
        for task in TASKS:
            plane.kubectl("-n", namespace.name, "delete", "ctask", task, "--timeout=30s")
        eventually(lambda: namespace.all_children() == [], timeout=60, what="that nothing is left")
