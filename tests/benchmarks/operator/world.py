"""A real API server, nodes that kwok plays, coordinators that answer, and the operator: where the figures are taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.cluster.control_plane import ControlPlane, control_plane, end, find_binaries, spawn

ROOT = Path(__file__).parents[3]
NODE = "made-up"
TASK_LABEL = "collectivelearning.dev/task"
TASKS = "/apis/collectivelearning.dev/v1alpha1"
AT_ONCE = 24

Manifest = dict[str, Any]


@contextmanager
def plane(folder: Path) -> Iterator[ControlPlane]:
    """Start a control plane with our definition and one node of kwok's, on which any number of pods "run"."""
    binaries = find_binaries()
    kwok = binaries and binaries["etcd"].parent / "kwok"
    if not binaries or not kwok or not kwok.is_file():
        raise SystemExit("needs etcd, kube-apiserver, kube-controller-manager, kubectl and kwok in KUBEBUILDER_ASSETS")
    with control_plane(binaries, folder) as started:
        started.kubectl("apply", "-f", str(ROOT / "crds" / "collectivetask.yaml"))
        annotations = {"kwok.x-k8s.io/node": "fake"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "annotations": annotations}}
        started.kubectl("apply", "-f", "-", stdin=node)
        stages = Path(__file__).with_name("stages.yaml")
        process = spawn(
            [
                kwok,
                f"--kubeconfig={started.kubeconfig}",
                f"--config={stages}",
                "--cidr=127.64.0.1/16",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-lease-duration-seconds=0",
            ],
            folder / "kwok.log",
        )
        try:
            yield started
        finally:
            end(process)


class Api:
    """A bare client: as many requests at once as the operator sends, and nothing between them."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url = plane.url
        self._session = session
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def request(self, method: str, path: str, body: Manifest | None = None) -> Manifest:
        """Send a request; what is no success raises."""
        async with self._gate, self._session.request(method, f"{self._url}{path}", json=body) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise AssertionError(f"{method} {path}: {answer.status} {text[:300]}")
            return json.loads(text) if text else {}

    async def create(self, manifest: Manifest) -> None:
        """Create an object."""
        plurals = {
            "Pod": "pods",
            "Service": "services",
            "ConfigMap": "configmaps",
            "PersistentVolumeClaim": "persistentvolumeclaims",
            "Secret": "secrets",
        }
        if manifest["kind"] == "CollectiveTask":
            path = f"{TASKS}/namespaces/{manifest['metadata']['namespace']}/collectivetasks"
        elif manifest["kind"] == "NetworkPolicy":
            path = f"/apis/networking.k8s.io/v1/namespaces/{manifest['metadata']['namespace']}/networkpolicies"
        else:
            path = f"/api/v1/namespaces/{manifest['metadata']['namespace']}/{plurals[manifest['kind']]}"
        await self.request("POST", path, manifest)

    async def namespace(self, name: str) -> str:
        """Make a namespace, and wait for its default account."""
        await self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for _ in range(200):
            try:
                await self.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")
            except AssertionError:
                await asyncio.sleep(0.05)
            else:
                return name
        raise AssertionError(f"{name} got no default account")

    async def count_pods(self, namespace: str, selector: str = "") -> int:
        """Count pods without reading them."""
        path = f"/api/v1/namespaces/{namespace}/pods?limit=1{f'&labelSelector={selector}' if selector else ''}"
        listed = await self.request("GET", path)
        if selector and "continue" in listed["metadata"]:  # the API server counts only what nothing selects from
            listed = await self.request("GET", path.replace("limit=1", "limit=5000"))
        return len(listed["items"]) + int(listed["metadata"].get("remainingItemCount") or 0)

    async def watch_pods(self, namespace: str) -> AsyncIterator[tuple[str, Manifest]]:
        """Tell of every change of a pod from now on."""
        listed = await self.request("GET", f"/api/v1/namespaces/{namespace}/pods?limit=1")
        version = listed["metadata"]["resourceVersion"]
        url = f"{self._url}/api/v1/namespaces/{namespace}/pods?watch=1&resourceVersion={version}"
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]


@asynccontextmanager
async def api_of(plane: ControlPlane) -> AsyncIterator[Api]:
    """Connect."""
    kubeconfig = json.loads(plane.kubeconfig.read_text())
    headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
    connector = aiohttp.TCPConnector(ssl=plane.tls, limit=2 * AT_ONCE)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield Api(plane, session)


@dataclass
class Coordinators:
    """Answers for every coordinator's pod, at the pod's own loopback address."""

    runners: list[web.AppRunner] = field(default_factory=list)
    asked: int = 0

    async def serve(self, pod: Manifest) -> None:
        """Begin to answer for a pod."""
        owner = pod["metadata"]["ownerReferences"][0]["uid"]
        said = {
            "version": 1,
            "uid": owner,
            "phase": "Running",
            "reason": "",
            "message": "",
            "round": {"current": 3, "total": 20, "accepted": 2},
            "latest": None,
            "learners": [],
            "result": None,
        }

        async def status(_: web.Request) -> web.Response:
            self.asked += 1
            return web.json_response(said)

        app = web.Application()
        app.add_routes([web.get("/status", status)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, pod["status"]["podIP"], 8080).start()
        self.runners.append(runner)

    async def follow(self, api: Api, namespace: str) -> None:
        """Answer for every coordinator that comes."""
        served: set[str] = set()
        async for kind, pod in api.watch_pods(namespace):
            labels, uid = pod["metadata"]["labels"], pod["metadata"]["uid"]
            ready = pod.get("status", {}).get("podIP") and uid not in served and kind != "DELETED"
            if ready and labels.get("app.kubernetes.io/component") == "coordinator":
                served.add(uid)
                await self.serve(pod)

    async def close(self) -> None:
        """End all servers."""
        for runner in self.runners:
            await runner.cleanup()


def task(namespace: str, name: str, *, learners: int) -> Manifest:
    """Write a task whose pods kwok's node runs."""
    here = {"podOverrides": {"spec": {"nodeName": NODE}}}
    return {
        "apiVersion": "collectivelearning.dev/v1alpha1",
        "kind": "CollectiveTask",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"name": "SKLEARN_DIGITS"},
            "dataLoader": {"name": "DIGITS"},
            "rounds": 20,
            "learners": {"count": learners, **here},
            "coordinator": here,
        },
    }


def own_kilobytes(pid: int, what: str) -> int:
    """Read a figure of a process' memory: VmRSS now, VmHWM at its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1])
    raise AssertionError(f"/proc/{pid}/status has no {what}")
