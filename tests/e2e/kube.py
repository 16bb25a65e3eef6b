"""A cluster as a person sees it: through kubectl and helm."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
TASK = "collectivelearning.dev/task"


def run(*command: str, stdin: str | None = None, check: bool = True, seconds: float = 60) -> str:
    """Run a command; what it said stands in the error when it fails."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:  # a probe that fails, as others do: its pod may be on its way out
        raise AssertionError(f"{' '.join(command)} did not end within {seconds:g} s") from error
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float) -> T:
    """Probe until there is an answer; a probe that fails says why in the error at the end."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            found = probe()
        except AssertionError as error:
            found, last = None, error
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds:.0f} s; last: {last}")


@dataclass(frozen=True)
class Namespace:
    """One namespace of the cluster."""

    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, seconds: float = 60) -> str:
        return run("kubectl", "-n", self.name, *arguments, stdin=stdin, check=check, seconds=seconds)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object, or None where there is none of that name."""
        found = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found else None

    def items(self, kinds: str, selector: str = "") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-l", selector, "-o", "json"))["items"]
        return items

    def apply(self, manifest: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def http(self, pod: str, path: str, port: int = 8080) -> str:
        """What a pod answers, through the API server."""
        return self.kubectl("get", "--raw", f"/api/v1/namespaces/{self.name}/pods/{pod}:{port}/proxy{path}", seconds=20)

    def finished(self, task: str, *, seconds: float) -> dict[str, Any]:
        """The task, once it has a verdict."""

        def verdict() -> dict[str, Any] | None:
            found = self.get("ctask", task)
            assert found is not None, f"{task} is gone"
            return found if found.get("status", {}).get("phase") in {"Complete", "Failed"} else None

        return wait_for(f"a verdict on {task}", verdict, seconds=seconds)

    def rounds_decided(self, task: str) -> int:
        """How far the coordinator is, asked without the operator between."""
        current: int = json.loads(self.http(f"{task}-coordinator", "/status"))["round"]["current"]
        return current

    def replaced(self, pod: str, old_uid: str, *, seconds: float) -> dict[str, Any]:
        """The pod of that name that came after another, once it is ready."""

        def ready() -> dict[str, Any] | None:
            found = self.get("pod", pod)
            if found is None or found["metadata"]["uid"] == old_uid:
                return None
            conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
            return found if conditions.get("Ready") == "True" or found["status"]["phase"] == "Succeeded" else None

        return wait_for(f"a new pod {pod}", ready, seconds=seconds)

    def uids(self, selector: str) -> dict[str, str]:
        """The pods that a selector finds, by name: a pod of the same name and another uid is another pod."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.items("pods", selector)}

    def left_of(self, task: str) -> list[str]:
        """Every object that carries the task's label."""
        kinds = "pods,services,configmaps,persistentvolumeclaims,endpointslices,secrets,serviceaccounts"
        return [f"{item['kind']}/{item['metadata']['name']}" for item in self.items(kinds, f"{TASK}={task}")]

    def describe(self) -> str:
        """Everything that helps to see what went wrong."""
        looks = [
            ("get", "ctask,pods,services,configmaps,pvc", "-o", "wide"),
            ("get", "ctask", "-o", "yaml"),
            ("describe", "pods"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ]
        told = [f"$ kubectl -n {self.name} {' '.join(look)}\n{self.kubectl(*look, check=False)}" for look in looks]
        for pod in self.kubectl("get", "pods", "-o", "name", check=False).split():
            for previous in ("--previous=false", "--previous=true"):
                logs = self.kubectl("logs", pod, "--tail=60", previous, check=False)
                if logs:
                    told.append(f"$ kubectl -n {self.name} logs {pod} {previous}\n{logs}")
        return "\n".join(told)
