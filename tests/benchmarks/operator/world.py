"""A real API server, nodes that kwok plays, coordinators that answer, and the operator: where the figures are taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.cluster.control_plane import ControlPlane, control_plane, end, find_binaries, spawn

from collective_operator.api import KIND
from collective_operator.cluster.memory import CHILD_KINDS
from collective_operator.cluster.objects import collection

ROOT = Path(__file__).parents[3]
NODE = "made-up"
LEARNERS = 8
TASK_LABEL = "collectivelearning.dev/task"
TASKS = "/apis/collectivelearning.dev/v1alpha1"
JSON = {"Content-Type": "application/json"}
CONNECTIONS = 64

Manifest = dict[str, Any]


@contextmanager
def plane(folder: Path) -> Iterator[ControlPlane]:
    """Start a control plane with our definition and one node of kwok's, on which any number of pods "run"."""
    binaries = find_binaries()
    kwok = binaries and binaries["etcd"].parent / "kwok"
    if not binaries or not kwok or not kwok.is_file():
        raise SystemExit("needs etcd, kube-apiserver, kube-controller-manager, kubectl and kwok in KUBEBUILDER_ASSETS")
    folder.mkdir()
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
    """A bare client: requests, and nothing between them."""

    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url = plane.url
        self._session = session

    async def request(self, method: str, path: str, body: Manifest | bytes | None = None) -> Manifest:
        """Send a request; what is no success raises."""
        answer = await self.send(method, path, body if body is None or isinstance(body, bytes) else encoded(body))
        return json.loads(answer) if answer else {}

    async def send(self, method: str, path: str, body: bytes | None) -> bytes:
        """Send a request and read no more of its answer than whether it is a success."""
        async with self._session.request(method, f"{self._url}{path}", data=body, headers=JSON) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise AssertionError(f"{method} {path}: {answer.status} {text[:300]!r}")
            return text

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""
        return await self.request("POST", collection_of(manifest), manifest)

    async def create_all(self, bodies: Sequence[tuple[str, bytes]], *, at_once: int) -> None:
        """Create objects, given as the path and the body of each."""
        await in_parallel([partial(self.send, "POST", path, body) for path, body in bodies], at_once=at_once)

    def tasks(self, namespace: str) -> str:
        """Return the path of a namespace's tasks."""
        return f"{TASKS}/namespaces/{namespace}/collectivetasks"

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

    async def remove_all(self, namespace: str) -> None:
        """Delete the tasks of a namespace and all that tasks have, and wait until it is gone."""
        for kind in (KIND, *CHILD_KINDS, "Secret"):
            path = path_of_all(kind, namespace)
            while (await self.request("GET", f"{path}?limit=1"))["items"]:
                only = "" if kind in (KIND, "Secret") else f"&labelSelector={TASK_LABEL}"
                await self.request("DELETE", f"{path}?gracePeriodSeconds=0&limit=1000{only}")
                if kind == "ConfigMap":  # the namespace's own stays
                    break

    async def watch_pods(self, namespace: str, component: str) -> AsyncIterator[tuple[str, Manifest]]:
        """Tell of every change of a pod of this kind from now on."""
        listed = await self.request("GET", f"/api/v1/namespaces/{namespace}/pods?limit=1")
        version = listed["metadata"]["resourceVersion"]
        only = f"labelSelector=app.kubernetes.io/component%3D{component}"
        url = f"{self._url}/api/v1/namespaces/{namespace}/pods?watch=1&resourceVersion={version}&{only}"
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
    connector = aiohttp.TCPConnector(ssl=plane.tls, limit=CONNECTIONS)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield Api(plane, session)


@dataclass
class Coordinators:
    """Answers for every coordinator's pod, at the pod's own loopback address."""

    tasks: dict[str, str] = field(default_factory=dict)
    """The uid of the task by the address of its coordinator."""

    async def status(self, request: web.Request) -> web.Response:
        """Say that the rounds run."""
        assert request.transport
        address, *_ = request.transport.get_extra_info("sockname")
        said = {
            "version": 1,
            "uid": self.tasks[address],
            "phase": "Running",
            "reason": "",
            "message": "",
            "round": {"current": 3, "total": 20, "accepted": 2},
            "latest": None,
            "learners": [],
            "result": None,
        }
        return web.json_response(said)

    async def follow(self, api: Api, namespace: str) -> None:
        """Answer for every coordinator that comes."""
        app = web.Application()
        app.add_routes([web.get("/status", self.status)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            async for kind, pod in api.watch_pods(namespace, "coordinator"):
                address = pod.get("status", {}).get("podIP")
                if address and kind != "DELETED":
                    known = address in self.tasks
                    self.tasks[address] = pod["metadata"]["ownerReferences"][0]["uid"]
                    if not known:
                        await web.TCPSite(runner, address, 8080).start()
        finally:
            await runner.cleanup()


async def in_parallel(steps: Sequence[Callable[[], Awaitable[object]]], *, at_once: int) -> None:
    """Take many steps, so many at a time."""
    waiting = iter(steps)

    async def some() -> None:
        for step in waiting:
            await step()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())


def encoded(manifest: Manifest) -> bytes:
    """Write a manifest as it is sent."""
    return json.dumps(manifest).encode()


def collection_of(manifest: Manifest) -> str:
    """Return the path that an object is created at."""
    return path_of_all(manifest["kind"], manifest["metadata"]["namespace"])


def path_of_all(kind: str, namespace: str) -> str:
    """Return the path of all objects of a kind."""
    if kind == "Secret":  # which the operator never lists
        return f"/api/v1/namespaces/{namespace}/secrets"
    return collection(kind, namespace)


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
