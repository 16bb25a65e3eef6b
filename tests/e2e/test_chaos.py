"""Random pods, the operator and the API server are killed for minutes while tasks run: all complete, nothing is left.

`make chaos-cluster` runs it. What is done, and to whom, is drawn from a seed that is printed; when exactly, the cluster
decides. The API server is killed only where somebody says how, as only they know how it is started again.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from .kube import TASK, Namespace, run, wait_for
from .test_digits import OPERATOR, ROUNDS, all_rounds_stand_once, gone, long_task, volume_of

MINUTES = float(os.environ.get("COLLECTIVE_CHAOS_MINUTES") or 0)
API_SERVER = os.environ.get("COLLECTIVE_CHAOS_API_SERVER", "")
AT_ONCE = 2
PAUSE_S = (2.0, 10.0)
"""Between two deeds; rounds must get somewhere in between, now and then."""
RECOVERY_S = 600
END = "import os, signal; os.kill(1, signal.SIGTERM)"


def task_of(number: int) -> dict[str, Any]:
    """A task that does not take being killed again and again for a fault of its own."""
    task = long_task(f"chaos-{number}")
    task["spec"]["learners"]["count"] = 2
    task["spec"]["policy"] = {
        "preRunningDeadlineSeconds": 600,
        "backoff": {"limit": 100, "initialSeconds": 1, "maxSeconds": 5},
    }
    return task


@dataclass
class Chaos:
    """What is done to a cluster."""

    lab: Namespace
    system: Namespace
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    """Deeds of which the cluster would hear nothing."""

    def deed(self) -> None:
        """Do one of the things that happen to clusters; it may be that nobody is there to do it to."""
        deeds: list[tuple[int, Callable[[], bool]]] = [
            (6, self.kill_a_pod),
            (4, self.delete_a_pod),
            (3, self.end_a_program),
            (2, self.kill_the_leader),
            (1, self.kill_all_operators),
        ]
        if API_SERVER:
            deeds.append((2, self.kill_the_api_server))
        ((_, what),) = self.chance.choices(deeds, weights=[weight for weight, _ in deeds])
        try:
            self.done[what.__name__] += what()
        except (AssertionError, subprocess.TimeoutExpired):  # the API server may be away
            self.missed += 1

    def _pod(self) -> str | None:
        names = sorted(pod["metadata"]["name"] for pod in self.lab.items("pods", TASK) if "status" in pod)
        return self.chance.choice(names) if names else None

    def _operators(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.system.items("pods", OPERATOR))

    def kill_a_pod(self) -> bool:
        """As a node does that is gone."""
        pod = self._pod()
        if pod:
            self.lab.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
        return bool(pod)

    def delete_a_pod(self) -> bool:
        """As a node does that is drained."""
        pod = self._pod()
        if pod:
            self.lab.kubectl("delete", "pod", pod, "--wait=false")
        return bool(pod)

    def end_a_program(self) -> bool:
        """And leave the pod, whose kubelet starts it again."""
        pod = self._pod()
        if pod:
            self.lab.kubectl("exec", pod, "--", "python", "-c", END, seconds=20)
        return bool(pod)

    def kill_the_leader(self) -> bool:
        """So that the other operator has to take over."""
        lease = self.system.kubectl("get", "lease", "-o", "jsonpath={.items[0].spec.holderIdentity}")
        leader = lease.partition("_")[0]
        if leader in self._operators():
            self._remove_operators(leader)
        return bool(leader)

    def kill_all_operators(self) -> bool:
        """So that nobody sees to the tasks for a while."""
        operators = self._operators()
        self._remove_operators(*operators)
        return bool(operators)

    def kill_the_api_server(self) -> bool:
        """And have it started again."""
        subprocess.run(API_SERVER, shell=True, check=True, timeout=120, stdout=subprocess.DEVNULL)
        return True

    def _remove_operators(self, *pods: str) -> None:
        self.system.kubectl("delete", "pod", *pods, "--grace-period=0", "--force", "--wait=false")


def ended(lab: Namespace, running: set[str]) -> list[dict[str, Any]]:
    """Find those of the tasks that are over."""
    found = {task["metadata"]["name"]: task for task in lab.items("ctask")}
    lost = running - found.keys()
    assert not lost, f"tasks that are gone: {lost}"
    over = [task for name, task in found.items() if name in running and task.get("status", {}).get("completionTime")]
    for task in over:
        assert task["status"]["phase"] == "Complete", task["status"]
        assert task["status"]["round"]["current"] == ROUNDS, task["status"]
    return over


@pytest.mark.skipif(not MINUTES, reason="takes minutes: `KUBECONFIG=... make chaos-cluster` runs it")
@pytest.mark.timeout(MINUTES * 60 + 2 * RECOVERY_S)
def test_all_complete_and_nothing_is_left(lab: Namespace, system: Namespace) -> None:
    seed = int(os.environ.get("COLLECTIVE_CHAOS_SEED") or random.randrange(2**32))
    print(
        f"\nSEED={seed} MINUTES={MINUTES:g}" + ("" if API_SERVER else "; the API server is left alone: nobody says how")
    )
    chaos = Chaos(lab, system, random.Random(seed))
    end = time.monotonic() + MINUTES * 60
    running: set[str] = set()
    complete: list[str] = []
    number = 0
    while time.monotonic() < end:
        try:
            over = {task["metadata"]["name"] for task in ended(lab, running)}
            running -= over
            complete += sorted(over)
            while len(running) < AT_ONCE:
                lab.apply(task_of(number))
                running.add(f"chaos-{number}")
                number += 1
        except (AssertionError, subprocess.TimeoutExpired) as error:
            if is_there():
                raise
            print(f"no API server: {str(error).splitlines()[0]}")
        chaos.deed()
        time.sleep(chaos.chance.uniform(*PAUSE_S))
    print(
        f"{sum(chaos.done.values())} deeds: {dict(chaos.done)}, {chaos.missed} missed; {len(complete)} tasks complete"
    )
    calm = time.monotonic()
    wait_for("an API server", is_there, seconds=120)
    wait_for("operators", lambda: system.kubectl("rollout", "status", "deployment", "--timeout=5s"), seconds=180)
    while running:
        over = wait_for("another task to complete", partial(ended, lab, running), seconds=RECOVERY_S)
        running -= {task["metadata"]["name"] for task in over}
        complete += sorted(task["metadata"]["name"] for task in over)
    print(f"calm: all {len(complete)} tasks complete after {time.monotonic() - calm:.0f} s")
    for name in complete:
        wait_for(f"no pod of {name} that runs", partial(_holds_nothing, lab, name), seconds=120)
        all_rounds_stand_once(volume_of(lab, system, name), ROUNDS)
        gone(lab, name)
    left = lab.items("pods,services,configmaps,pvc,secrets,networkpolicies,leases", TASK)
    assert not left, [item["metadata"]["name"] for item in left]


def is_there() -> bool:
    """Tell whether the API server answers."""
    try:
        return "ok" in run("kubectl", "get", "--raw", "/readyz", check=False, seconds=10)
    except AssertionError:
        return False


def _holds_nothing(lab: Namespace, task: str) -> bool:
    """Tell whether no pod of a task holds something of its node."""
    return all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in lab.items("pods", f"{TASK}={task}"))
