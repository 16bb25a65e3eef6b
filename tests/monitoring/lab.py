"""A task that trains, an operator on an API server, and a Prometheus that scrapes them all.

The task is a real `collective run`, with differential privacy and a vote on every average. The operator serves a task
of the same name on a real API server, where this module plays the kubelet; what its coordinator says is what the
real one says. Labels are those that the chart's monitors put on series.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..cluster.control_plane import ControlPlane, control_plane, end, eventually, spawn
from ..cluster.playground import Coordinator, Namespace, Operator
from ..ports import free_port
from ..run.runs import Run
from .tools import ALERTS, ROOT

NAMESPACE = "lab"
TASK = yaml.safe_load((ROOT / "examples" / "digits-private.yaml").read_text())
TASK["metadata"]["name"] = "digits"
TASK["spec"] |= {
    "rounds": 1000,
    "strategy": {"type": "FedAvg", "gate": {"type": "Vote"}},
    "policy": {"minLearners": 2, "preRunningDeadlineSeconds": 3600},
}
TASK["spec"]["model"]["parameters"] |= {"epochs": 1, "diff_priv_config": {
    "target_epsilon": 20, "target_delta": 0.001, "max_grad_norm": 1.0, "noise_multiplier": 2.5,
}}  # fmt: skip
WAITING = {
    **TASK,
    "metadata": {"name": "waits-for-gpus"},
    "spec": {**TASK["spec"], "learners": {"count": 2, "gpus": {"count": 2}}, "model": {"name": "TORCH_DIGITS"}},
}
FAILED = {
    **WAITING,
    "metadata": {"name": "disk-full"},
    "spec": {**WAITING["spec"], "learners": {"count": 1}, "policy": {}},
}


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def ask(self, path: str, **parameters: object) -> Any:
        """Call its HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str) -> list[dict[str, Any]]:
        """What an expression returns now."""
        return list(self.ask("query", query=expression)["result"])

    def history(self, expression: str, *, start: float, stop: float, step: float) -> list[dict[str, Any]]:
        """What it returned over time."""
        return list(self.ask("query_range", query=expression, start=start, end=stop, step=step)["result"])


@dataclass(frozen=True)
class Lab:
    """All that runs."""

    prometheus: Prometheus
    run: Run

    def kill_a_learner(self) -> None:
        """Kill a learner's process; `collective run` starts another one, as a kubelet would."""
        os.kill(self.run.children("collective_learner")[-1], signal.SIGKILL)


@contextmanager
def lab(binaries: dict[str, Path], prometheus: str, folder: Path) -> Iterator[Lab]:
    """Start everything, and stop it whatever happens."""
    with ExitStack() as stack:
        plane = stack.enter_context(control_plane(binaries, _folder(folder / "plane")))
        task = folder / "task.yaml"
        task.write_text(yaml.safe_dump(TASK))
        workdir = folder / "run"
        run = Run(task, "--workdir", workdir, cwd=folder)
        stack.callback(run.end)
        operator = stack.enter_context(_operator(plane, folder))
        coordinator = eventually(lambda: _coordinator(run), timeout=240, what="the run's coordinator")
        stack.enter_context(_tasks(plane, f"http://127.0.0.1:{coordinator}/status"))
        learners = eventually(lambda: _learners(run, workdir), timeout=240, what="the run's learners")
        # Rarely and with patience: a scrape that is missed ends a series, and the next one would begin it anew.
        seldom = {"__scrape_interval__": "10s", "__scrape_timeout__": "10s"}
        where = {"namespace": "collective-system", "pod": "collective-operator-0"}
        targets = [_target("operator", operator.port, **where, **seldom)]
        targets += [
            _target("coordinator", coordinator, namespace=NAMESPACE, task="digits", pod="digits-coordinator"),
            *(
                _target("learner", port, namespace=NAMESPACE, task="digits", pod=f"digits-{name}", learner=name)
                for name, port in learners
            ),
        ]
        yield Lab(stack.enter_context(_prometheus(prometheus, folder, targets)), run)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _options(command: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in command)


def _coordinator(run: Run) -> str | None:
    """Give the coordinator's HTTP port, once it runs."""
    found = [_options(command)["--port"] for command in run.processes().values() if "collective_coordinator" in command]
    return found[0] if found else None


def _learners(run: Run, workdir: Path) -> list[tuple[str, str]]:
    """Give the name and metrics port of each learner, as the coordinator knows it."""
    config = json.loads((workdir / ".run" / "digits-coordinator" / "coordinator.json").read_text())
    learners = [_options(command) for command in run.processes().values() if "collective_learner" in command]
    ports = {options["--port"]: options["--metrics-port"] for options in learners if "--metrics-port" in options}
    return [(it["name"], ports[it["address"].rpartition(":")[2]]) for it in config["learners"]]


def _target(component: str, port: object, **labels: str) -> dict[str, Any]:
    return {"targets": [f"127.0.0.1:{port}"], "labels": {"component": component, **labels}}


@contextmanager
def _operator(plane: ControlPlane, folder: Path) -> Iterator[Operator]:
    plane.kubectl("apply", "-f", str(ROOT / "crds" / "collectivetask.yaml"))
    wait = ("wait", "--for=condition=Established", "--timeout=30s", "crd/collectivetasks.collectivelearning.dev")
    eventually(lambda: plane.kubectl(*wait, check=False).returncode == 0, what="the definition")
    operator = Operator(plane, folder / "operator")
    operator.start()
    try:
        yield operator
    finally:
        operator.stop()


@contextmanager
def _tasks(plane: ControlPlane, status: str) -> Iterator[None]:
    """Apply three tasks and play their kubelet: one that runs, one that waits for GPUs, one that has failed."""
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    eventually(lambda: plane.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"), what="the account")
    namespace = Namespace(plane, NAMESPACE)
    for task in (TASK, WAITING, FAILED):
        namespace.apply(task)
    pods = namespace.await_pods(4 + 3 + 2)
    stop = threading.Event()
    with Coordinator(uid=str(namespace.task()["metadata"]["uid"])).serving() as coordinator:
        uid = coordinator.said["uid"] if isinstance(coordinator.said, dict) else ""

        def follow() -> None:
            while not stop.wait(0.3):
                try:
                    with urllib.request.urlopen(status, timeout=5) as answer:
                        coordinator.said = {**json.load(answer), "uid": uid}
                except (OSError, http.client.HTTPException, ValueError):  # nobody answers, or half
                    continue

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        for name in pods:
            if name.startswith("digits-"):
                namespace.run_pod(name, address=coordinator.address)
            elif name.startswith("waits"):
                _unschedulable(namespace, name)
        verdict = {**coordinator.said, "uid": namespace.task("disk-full")["metadata"]["uid"]}
        verdict |= {"phase": "Failed", "reason": "StorageFailed", "message": "No space left on device", "learners": []}
        namespace.end_pod("disk-full-coordinator", phase="Succeeded", message=json.dumps(verdict))
        try:
            yield
        finally:
            stop.set()
            following.join()


def _unschedulable(namespace: Namespace, pod: str) -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    namespace.set_pod(pod, {"phase": "Pending", "conditions": [condition]})


@contextmanager
def _prometheus(binary: str, folder: Path, targets: list[dict[str, Any]]) -> Iterator[Prometheus]:
    config, port = folder / "prometheus.yaml", free_port()
    job = {"job_name": "collective", "honor_labels": True, "static_configs": targets}
    intervals = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "5s"}
    config.write_text(json.dumps({"global": intervals, "rule_files": [str(ALERTS)], "scrape_configs": [job]}))
    process = spawn(
        [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        folder / "prometheus.log",
    )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: prometheus.series("up"), timeout=180, what=f"Prometheus ({folder / 'prometheus.log'})")
        yield prometheus
    finally:
        end(process)
