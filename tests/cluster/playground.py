"""What a test does in a namespace: apply tasks, look, and play the kubelet."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..ports import free_port
from .control_plane import ControlPlane, end, eventually, spawn

COORDINATOR_PORT = 8080
TASKS = "/apis/collectivelearning.dev/v1alpha1"

Manifest = dict[str, Any]


def manifest(name: str = "digits", **spec: Any) -> Manifest:
    """A task that is valid unless told otherwise."""
    return {
        "apiVersion": "collectivelearning.dev/v1alpha1",
        "kind": "CollectiveTask",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "SKLEARN_DIGITS"},
            "dataLoader": {"name": "DIGITS"},
            "rounds": 20,
            "learners": {"count": 2},
            **spec,
        },
    }


@dataclass(frozen=True)
class Namespace:
    """One test's namespace."""

    plane: ControlPlane
    name: str

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.name}"

    @property
    def tasks(self) -> str:
        return f"{TASKS}/namespaces/{self.name}/collectivetasks"

    def hook(self, name: str, *, rule: Manifest, client: Manifest) -> Manifest:
        """Word the configuration of an admission webhook that is asked about this namespace alone."""
        webhook = {
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.name}},
            "clientConfig": client,
            "rules": [{"apiVersions": ["v1"], **rule}],
        }
        return {"metadata": {"name": self.name}, "webhooks": [webhook]}

    def apply(self, task: Manifest, **options: Any) -> Any:
        return self.plane.kubectl("-n", self.name, "apply", "-f", "-", stdin=task, **options)

    def task(self, name: str = "digits") -> Manifest:
        found = self.plane.get(f"{self.tasks}/{name}")
        assert found, f"no task {name}"
        return found

    def status(self, name: str = "digits") -> Manifest:
        return self.task(name).get("status", {})

    def condition(self, kind: str, name: str = "digits") -> Manifest:
        return {found["type"]: found for found in self.status(name).get("conditions", ())}.get(kind, {})

    def await_reason(self, kind: str, reason: str, name: str = "digits") -> Manifest:
        """Wait until a condition has this reason, and return it."""
        return eventually(
            lambda: found if (found := self.condition(kind, name)).get("reason") == reason else None,
            what=f"{kind} of {name} with reason {reason}",
        )

    def pods(self) -> dict[str, Manifest]:
        return {pod["metadata"]["name"]: pod for pod in self.plane.request("GET", f"{self.core}/pods")["items"]}

    def uid(self, pod: str) -> str | None:
        found = self.plane.get(f"{self.core}/pods/{pod}")
        return found["metadata"]["uid"] if found else None

    def await_another(self, pod: str, uid: str) -> None:
        """Wait until there is a pod of this name with another uid."""
        eventually(lambda: self.uid(pod) not in (None, uid), what=f"a new {pod}")

    def events(self) -> list[tuple[str, str, str]]:
        """What is published by now, which may be less than the statuses tell: Events come behind everything else."""
        found = self.plane.request("GET", f"{self.core}/events")["items"]
        return [(event["type"], event["reason"], event["message"]) for event in found]

    def await_events(self, *reasons: str) -> Counter[str]:
        """Wait until there are Events of these reasons, and count those of each."""

        def count() -> Counter[str] | None:
            found = Counter(reason for _, reason, _ in self.events())
            return found if found.keys() >= set(reasons) else None

        return eventually(count, what=f"events {', '.join(reasons)}")

    @property
    def _roots(self) -> dict[str, tuple[str, ...]]:
        return {
            self.core: ("pods", "services", "configmaps", "persistentvolumeclaims", "secrets"),
            f"/apis/networking.k8s.io/v1/namespaces/{self.name}": ("networkpolicies",),
        }

    def secret(self, name: str) -> Manifest | None:
        found: Manifest | None = self.plane.get(f"{self.core}/secrets/{name}")
        return found

    def all_children(self) -> list[str]:
        return [
            f"{kind}/{item['metadata']['name']}"
            for root, kinds in self._roots.items()
            for kind in kinds
            for item in self.plane.request("GET", f"{root}/{kind}")["items"]
            if "collectivelearning.dev/task" in item["metadata"].get("labels", {})
        ]

    def await_pods(self, count: int) -> dict[str, Manifest]:
        return eventually(lambda: self.pods() if len(self.pods()) == count else None, what=f"{count} pods")

    def set_pod(self, name: str, status: Manifest) -> None:
        self.plane.request(
            "PATCH", f"{self.core}/pods/{name}/status", {"status": status}, kind="application/merge-patch+json"
        )

    def config_map(self, name: str, data: dict[str, str]) -> None:
        self.plane.request("POST", f"{self.core}/configmaps", {"metadata": {"name": name}, "data": data})

    def run_pod(self, name: str, *, address: str = "127.0.0.1", restarts: int = 0) -> None:
        """Say of a pod that it runs and is ready."""
        self.set_pod(
            name,
            {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [container(name, restarts, {"running": {}}, ready=True)],
            },
        )

    def end_pod(self, name: str, *, phase: str, message: str = "", code: int = 0) -> None:
        """Say of a pod that its container has ended."""
        ended = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": message}}
        self.set_pod(
            name,
            {
                "phase": phase,
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [container(name, 0, ended, ready=False)],
            },
        )

    def stick_pod(self, name: str, reason: str, message: str = "", *, restarts: int = 0, code: int = 0) -> None:
        """Say of a pod that its container waits."""
        state = container(name, restarts, {"waiting": {"reason": reason, "message": message}}, ready=False)
        if code:
            state["lastState"] = {"terminated": {"exitCode": code, "reason": "Error"}}
        self.set_pod(
            name,
            {
                "phase": "Running" if restarts else "Pending",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [state],
            },
        )


def container(pod: str, restarts: int, state: Manifest, *, ready: bool) -> Manifest:
    name = "coordinator" if pod.endswith("-coordinator") else "learner"
    return {"name": name, "image": "image", "imageID": "", "ready": ready, "restartCount": restarts, "state": state}


class Coordinator:
    """Answers /status in place of a coordinator's pod, at a loopback address of its own."""

    def __init__(self, uid: str) -> None:
        self.said: Manifest | bytes = {
            "version": 1,
            "uid": uid,
            "phase": "Waiting",
            "reason": "",
            "message": "",
            "round": {"current": 0, "total": 20, "accepted": 0},
            "latest": None,
            "learners": [],
            "result": None,
        }
        self.asked = 0
        self.address = ""

    def say(self, **members: Any) -> None:
        assert isinstance(self.said, dict)
        self.said = {**self.said, **members}

    @contextmanager
    def serving(self) -> Iterator[Coordinator]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                said = outer.said
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                with suppress(ConnectionError):  # who asked has not waited for it
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = _bind(Handler)
        self.address = str(server.server_address[0])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _bind(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Take the coordinator's port on some loopback address that nobody else has."""
    for _ in range(50):
        address = f"127.{random.randint(64, 127)}.{random.randint(1, 250)}.{random.randint(1, 250)}"
        try:
            return ThreadingHTTPServer((address, COORDINATOR_PORT), handler)
        except OSError:
            continue
    raise AssertionError(f"port {COORDINATOR_PORT} is taken on every address: something listens on 0.0.0.0")


class Operator:
    """The operator as a process of its own, logged in as somebody."""

    def __init__(
        self, plane: ControlPlane, folder: Path, *, options: Sequence[str] = (), kubeconfig: Path | None = None
    ) -> None:
        self._kubeconfig = kubeconfig or plane.kubeconfig
        self._folder = folder
        self._options = options
        folder.mkdir(exist_ok=True)
        self.log = folder / "operator.log"
        self.port = free_port()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "collective_operator",
            "operator",
            "--coordinator-access",
            "direct",
            "--metrics-host",
            "127.0.0.1",
            "--metrics-port",
            self.port,
            "--poll-seconds",
            0.5,
            "--learner-image",
            "learner:test",
            "--coordinator-image",
            "operator:test",
            "--grafana-url",
            "https://grafana.example.com",
            *self._options,
        ]
        environment = {key: value for key, value in os.environ.items() if key != "KUBERNETES_SERVICE_HOST"}
        self.process = spawn(
            [str(part) for part in command],
            self.log,
            cwd=self._folder,
            env={**environment, "KUBECONFIG": str(self._kubeconfig)},
        )

        def answers() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the operator ended with {self.process.returncode}:\n{self.log.read_text()}")
            return self.read("/healthz") == "ok"

        eventually(answers, timeout=120, what=f"the operator ({self.log})")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        end(self.process)

    def read(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return response.read().decode()

    def requests(self, *verbs: str) -> float:
        """How many requests of these verbs the operator has sent."""
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.read("/metrics").splitlines()
            if line.startswith("collective_k8s_api_requests_total{") and any(f'verb="{verb}"' in line for verb in verbs)
        )
