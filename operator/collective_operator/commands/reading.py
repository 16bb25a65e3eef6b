"""A task's results, wherever they are: its coordinator serves them while it runs, a pod that reads its volume after."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from collective_operator.api import TaskInvalid, parse_task
from collective_operator.cluster.api_server import read_bounded
from collective_operator.cluster.json_text import decoded
from collective_operator.cluster.objects import collection
from collective_operator.cluster.protocol import ClusterError, Manifest
from collective_operator.commands.client import Client
from collective_operator.commands.forward import Forward
from collective_operator.commands.reading_pod import reading_pod
from collective_operator.desired import names
from collective_operator.desired.coordinator_pod import RESULTS_PORT, own_container

_CHUNK = 1 << 20
_START_SECONDS = 120.0
_LISTEN_SECONDS = 30.0
_POLL_SECONDS = 0.5
_STALLED = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_NOTHING_NEW = 416
_WHOLE = (200,)
_PARTS = (200, 206, 404, _NOTHING_NEW)
_MOST_BEYOND = 4 << 20
_LONGEST_LIST = 1 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class Results:
    """The files of one task.

    Parameters
    ----------
    forward, session
        The way to whoever serves them.
    """

    def __init__(self, forward: Forward, session: aiohttp.ClientSession) -> None:
        self._forward = forward
        self._session = session

    async def sizes(self) -> dict[str, int]:
        """List what there is, by name, in bytes.

        Raises
        ------
        ClusterError
            Whoever answers lists no files, or one whose name leads elsewhere: a pod's word, which may be anything.
        """
        async with self._get("/results") as answer:
            said = await read_bounded(answer, _LONGEST_LIST)
        try:
            found = {str(file["name"]): int(file["size"]) for file in decoded(said)["files"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(status=0, message="/results: the answer is no list of files") from error
        if odd := next((name for name in found if not _FILE_NAME.fullmatch(name)), None):
            raise ClusterError(status=0, message=f"/results: {odd!r} is no name of a result")
        return found

    async def fetch(self, name: str, path: Path) -> int:
        """Fetch a file, whole or not at all; return its bytes."""
        aside = path.with_name(f".{path.name}.part")
        size = 0
        try:
            async with self._get(f"/results/{name}") as answer:
                with aside.open("wb") as file:
                    async for part in answer.content.iter_chunked(_CHUNK):
                        size += await asyncio.to_thread(file.write, part)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        return size

    async def beyond(self, name: str, offset: int) -> bytes | None:
        """Read what a file has beyond so many bytes, up to a bound; None when it is shorter than that."""
        async with self._get(f"/results/{name}", span=(offset, offset + _MOST_BEYOND - 1)) as answer:
            if answer.status == 404:
                return b""
            if answer.status == _NOTHING_NEW:
                whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
                return None if whole.isdecimal() and int(whole) < offset else b""
            return await read_bounded(answer, _MOST_BEYOND)

    @asynccontextmanager
    async def _get(self, path: str, *, span: tuple[int, int] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {} if span is None else {"Range": f"bytes={span[0]}-{span[1]}"}
        self._forward.failure = None
        try:
            async with self._session.get(path, headers=headers, timeout=_STALLED, allow_redirects=False) as answer:
                if answer.status not in (_WHOLE if span is None else _PARTS):
                    raise ClusterError(status=answer.status, message=f"{path}: answered with {answer.status}")
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            # What the API server said is why; that the connection broke is only how it came out.
            raise self._forward.failure or ClusterError(
                status=0, message=f"{path}: {str(error) or type(error).__name__}"
            ) from error


@asynccontextmanager
async def served_by_coordinator(client: Client, pod: Manifest) -> AsyncIterator[Results]:
    """Read from a coordinator that runs.

    Raises
    ------
    ClusterError
        It is of a version that serves no results.
    """
    port = results_port(pod)
    name = pod["metadata"]["name"]
    if port is None:
        raise ClusterError(
            status=0, message=f"{name} is of an earlier version: its results can be had once it has ended"
        )
    async with _forwarded(client, name, port) as results:
        yield results


@asynccontextmanager
async def results_of(
    client: Client, task: Manifest, *, image: str | None, note: Callable[[str], None]
) -> AsyncIterator[Results]:
    """Read a task's results, from its coordinator or from its volume.

    Parameters
    ----------
    image
        Of the pod that reads the volume; by default the coordinator's.
    note
        Told of what takes time.

    Raises
    ------
    ClusterError
        They cannot be had; the message tells why.
    """
    name = names.coordinator(task["metadata"]["name"])
    pod = await client.child("Pod", name)
    if pod is not None and is_serving(pod):
        async with served_by_coordinator(client, pod) as results:
            yield results
        return
    if await client.child("PersistentVolumeClaim", name) is None:
        raise ClusterError(status=404, message=f"there are no results: the volume claim {name} is not there")
    image = image or await _image(client, name, pod)
    async with _read_by_pod(client, task, image, note) as results:
        yield results


def is_serving(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod runs and stays."""
    ready = {found["type"]: found["status"] for found in (pod.get("status") or {}).get("conditions") or ()}
    return ready.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def results_port(pod: Mapping[str, Any]) -> int | None:
    """Read where a coordinator lets results be fetched from."""
    # A mesh may have put a container before the one that serves.
    ports = (port for container in pod["spec"]["containers"] for port in container.get("ports") or ())
    return next((int(port["containerPort"]) for port in ports if port.get("name") == RESULTS_PORT), None)


async def _image(client: Client, name: str, pod: Manifest | None) -> str:
    if pod is not None:
        return str(own_container(pod)["image"])
    config = await client.child("ConfigMap", name)
    annotations = (config or {}).get("metadata", {}).get("annotations") or {}
    if names.IMAGE_ANNOTATION not in annotations:
        raise ClusterError(
            status=0, message=f"the volume {name} needs a pod to read it: name the operator's image with --image"
        )
    return str(annotations[names.IMAGE_ANNOTATION])


@asynccontextmanager
async def _forwarded(client: Client, pod: str, port: int) -> AsyncIterator[Results]:
    forward = Forward(client.api, namespace=client.namespace, pod=pod, port=port)
    async with forward.session() as session:
        yield Results(forward, session)


@asynccontextmanager
async def _read_by_pod(
    client: Client, task: Manifest, image: str, note: Callable[[str], None]
) -> AsyncIterator[Results]:
    try:
        parsed = parse_task(task)
    except TaskInvalid as invalid:
        raise ClusterError(status=0, message=f"the task is of another version: {invalid}") from invalid
    name = f"{parsed.name}-results-{secrets.token_hex(3)}"
    manifest, pods = reading_pod(parsed, name=name, image=image), collection("Pod", client.namespace)
    note(f"the coordinator has gone: the pod {name} reads its volume")
    await client.api.request("POST", pods, verb="create", resource="pods", body=manifest)
    try:
        await _started(client, name)
        async with _forwarded(client, name, results_port(manifest) or 0) as results:
            await _listening(results)
            yield results
    finally:
        # Also when somebody interrupts: what cannot be deleted now ends by itself, and goes with its task.
        with suppress(ClusterError):
            await asyncio.shield(
                client.api.request(
                    "DELETE", f"{pods}/{name}", verb="delete", resource="pods", body={"gracePeriodSeconds": 0}
                )
            )


async def _started(client: Client, name: str) -> None:
    """Wait until the pod runs.

    Raises
    ------
    ClusterError
        It does not, in time or at all; the message has Kubernetes' word for why.
    """
    clock = asyncio.get_running_loop().time
    give_up, why = clock() + _START_SECONDS, "it is not there"
    while clock() < give_up:
        pod = await client.child("Pod", name)
        status = (pod or {}).get("status") or {}
        if pod is None or status.get("phase") in ("Failed", "Succeeded"):
            raise ClusterError(status=0, message=f"the pod {name} ended: {status.get('message') or why}")
        if status.get("phase") == "Running":
            return
        why = _why_waiting(status)
        await asyncio.sleep(_POLL_SECONDS)
    raise ClusterError(status=0, message=f"the pod {name} did not start in {_START_SECONDS:.0f} s: {why}")


def _why_waiting(status: Mapping[str, Any]) -> str:
    waiting = [one["state"]["waiting"] for one in status.get("containerStatuses") or () if "waiting" in one["state"]]
    said = [*waiting, *(one for one in status.get("conditions") or () if one["status"] != "True")]
    return next((f"{one.get('reason')}: {one['message']}" for one in said if one.get("message")), "it is Pending")


async def _listening(results: Results) -> None:
    clock = asyncio.get_running_loop().time
    give_up = clock() + _LISTEN_SECONDS
    while True:
        try:
            await results.sizes()
            return
        except ClusterError as error:
            if clock() > give_up or error.status == 403:
                raise
        await asyncio.sleep(_POLL_SECONDS)
