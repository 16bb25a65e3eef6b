"""Lists tasks and what belongs to them: all there is, page by page, or one task's children."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from collective_operator.api import KIND
from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.memory import kept
from collective_operator.cluster.objects import PLURALS, api_version, collection
from collective_operator.cluster.protocol import Manifest, TaskKey
from collective_operator.desired import names

PAGE = 500
"""Objects in one answer to a listing of everything."""

Pause = Callable[[], Awaitable[None]]


async def children_of(api: ApiServer, key: TaskKey, kind: str) -> tuple[list[Manifest], str]:
    """List what carries a task's label, of one kind, with the listing's resource version.

    Raises
    ------
    ClusterError
        When the cluster cannot be asked.
    """
    listed = await api.request(
        "GET",
        collection(kind, key.namespace),
        verb="list",
        resource=PLURALS[kind],
        query=[("labelSelector", f"{names.TASK_LABEL}={key.name}")],
    )
    # Items of a list carry no kind of their own, and a manifest without one cannot be acted on.
    found = [{"apiVersion": api_version(kind), "kind": kind, **item} for item in listed.get("items") or ()]
    return found, listed["metadata"]["resourceVersion"]


async def everything(
    api: ApiServer, kind: str, namespace: str | None, *, pause: Pause | None = None
) -> tuple[list[Manifest], str]:
    """List everything of a kind that is a task or a task's, as it is remembered, with the listing's resource version.

    Parameters
    ----------
    api, kind, namespace
        What is listed; everywhere without a namespace.
    pause
        Awaited before each page.

    Raises
    ------
    ClusterError
        When the cluster cannot be asked.
    """
    pages = [page async for page in _pages(api, kind, namespace, pause)]
    return [item for items, _ in pages for item in items], pages[0][1]


async def _pages(
    api: ApiServer, kind: str, namespace: str | None, pause: Pause | None
) -> AsyncIterator[tuple[list[Manifest], str]]:
    query = [("limit", str(PAGE))] + ([("labelSelector", names.TASK_LABEL)] if kind != KIND else [])
    more: list[tuple[str, str]] = []
    while True:
        if pause:
            await pause()
        page = await api.request(
            "GET", collection(kind, namespace), verb="list", resource=PLURALS[kind], query=[*query, *more]
        )
        yield [kept(kind, item) for item in page.get("items") or ()], page["metadata"]["resourceVersion"]
        if not page["metadata"].get("continue"):
            return
        more = [("continue", page["metadata"]["continue"])]
