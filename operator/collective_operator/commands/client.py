"""A person's access to the tasks of a cluster: what commands ask the API server for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
from kubernetes.aio.config import ConfigException

from collective_operator.api import KIND, PLURAL
from collective_operator.cluster.objects import PLURALS, collection, task_path
from collective_operator.cluster.protocol import ClusterError, Manifest, TaskKey
from collective_operator.commands.streams import StreamingApiServer
from collective_operator.settings import in_cluster, own_namespace

T = TypeVar("T")

_PAGE = 500
_KUBECONFIG = "~/.kube/config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which cluster and namespace, as the options of a command say."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


class Client:
    """Tasks, and what belongs to them.

    Parameters
    ----------
    api
        The API server.
    namespace
        Where tasks are looked for.
    """

    def __init__(self, api: StreamingApiServer, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def task(self, name: str) -> Manifest:
        """Read a task.

        Raises
        ------
        ClusterError
            There is none of this name.
        """
        try:
            return await self.api.request("GET", task_path(TaskKey(self.namespace, name)), verb="get", resource=PLURAL)
        except ClusterError as error:
            raise _explained(error) from error

    async def tasks(self, *, everywhere: bool = False, selector: str = "") -> list[Manifest]:
        """List tasks, of this namespace or of all."""
        try:
            return await self._list(KIND, None if everywhere else self.namespace, labelSelector=selector)
        except ClusterError as error:
            raise _explained(error) from error

    async def patch(self, name: str, patch: Mapping[str, Any]) -> Manifest:
        """Change members of a task."""
        path = task_path(TaskKey(self.namespace, name))
        return await self.api.request("PATCH", path, verb="patch", resource=PLURAL, body=patch)

    async def events(self, task: Mapping[str, Any]) -> list[Manifest]:
        """List the Events about a task, the oldest first."""
        found = await self._list(
            "Event", task["metadata"]["namespace"], fieldSelector=f"involvedObject.uid={task['metadata']['uid']}"
        )
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event["metadata"]["creationTimestamp"])

    async def child(self, kind: str, name: str) -> Manifest | None:
        """Read an object of the namespace; None when there is none of this name."""
        path = f"{collection(kind, self.namespace)}/{name}"
        try:
            return await self.api.request("GET", path, verb="get", resource=PLURALS[kind])
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def _list(self, kind: str, namespace: str | None, **query: str) -> list[Manifest]:
        path = f"/api/v1/namespaces/{namespace}/events" if kind == "Event" else collection(kind, namespace)
        resource = PLURALS.get(kind, "events")
        found: list[Manifest] = []
        chosen = [(name, value) for name, value in query.items() if value]
        more: Sequence[tuple[str, str]] = ()
        while True:
            page = await self.api.request(
                "GET", path, verb="list", resource=resource, query=[("limit", str(_PAGE)), *chosen, *more]
            )
            found += page.get("items") or ()
            if not (token := page["metadata"].get("continue")):
                return found
            more = [("continue", token)]


def _explained(error: ClusterError) -> ClusterError:
    """Say of an answer that tells nothing what it most often means."""
    if error.status == 404 and "could not find the requested resource" in error.message:
        return ClusterError(
            status=404, message="this cluster knows no CollectiveTasks: neither operator nor definition is installed"
        )
    return error


async def connected(access: Access, work: Callable[[Client], Awaitable[T]]) -> T:
    """Log in, work, and leave: by a kubeconfig, as kubectl does, and by a pod's account only where there is none.

    Raises
    ------
    ClusterError, kubernetes.aio.config.ConfigException
        The cluster did not do what it was asked, or there is no way to one.
    """
    named = access.kubeconfig is not None or access.context is not None
    outside = named or not in_cluster() or bool(_kubeconfigs(None)[1])
    api = await StreamingApiServer.connect(
        in_cluster=not outside,
        agent=f"collective/{version('collective-operator')}",
        count=lambda **_: None,
        kubeconfig=_kubeconfig(access.kubeconfig) if outside else None,
        context=access.context,
    )
    try:
        return await work(Client(api, access.namespace or (api.namespace if outside else own_namespace())))
    finally:
        await api.close()


def _kubeconfig(named: str | None) -> str:
    """Find the kubeconfig, several as KUBECONFIG may name them; the client would go on with none at all."""
    paths, found = _kubeconfigs(named)
    if not found:
        raise ClusterError(
            status=0, message=f"{', '.join(paths)}: is not there; name a kubeconfig with --kubeconfig or KUBECONFIG"
        )
    return os.pathsep.join(found)


def _kubeconfigs(named: str | None) -> tuple[list[str], list[str]]:
    """List those that are meant, and those of them that are there."""
    paths = [path for path in (named or os.environ.get("KUBECONFIG") or _KUBECONFIG).split(os.pathsep) if path]
    return paths, [str(Path(path).expanduser()) for path in paths if Path(path).expanduser().is_file()]


def in_cluster_do(access: Access, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do what a command does in a cluster; what goes wrong is one line for people."""
    try:
        return asyncio.run(connected(access, work))
    except ClusterError as error:
        raise click.ClickException(error.message) from error
    except ConfigException as error:
        raise click.ClickException(f"no way to an API server: {error}") from error
