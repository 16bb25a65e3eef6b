"""Follows the children of all tasks: a watch for each kind and namespace, and nothing kept of what it tells.

kopf follows tasks. Children are tens of thousands, each of which changes a few times while it starts, and what kopf
does with an event, to find out which of many kinds of handlers it is for, took a fifth of the operator's time.

A watch goes on where it was cut off. Where the API server no longer knows that place, it begins anew with all that
there is, and of what went meanwhile it says nothing: somebody has to list.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.objects import PLURALS, collection
from collective_operator.cluster.protocol import ClusterError
from collective_operator.desired import names

_SERVER_SECONDS = (300, 600)
"""How long the API server lets a watch go on; not all end together."""
_GONE = 410
_PAUSES = (0.5, 1.0, 2.0, 3.0, 5.0)
"""Seconds before a watch goes on, by how often it has told nothing."""

_log = logging.getLogger(__name__)


class Tell(Protocol):
    """Told of a child as a watch saw it."""

    def __call__(self, kind: str, manifest: Mapping[str, Any], *, gone: bool) -> None:
        """Take it; it is there, or it is gone."""


class Follower:
    """Follows one kind of children in one namespace, or everywhere.

    Parameters
    ----------
    api
        Where they are.
    kind, namespace
        Which are followed; everywhere without a namespace.
    version
        The resource version from which on; empty: it begins with all that there is.
    tell
        Told of each.
    began_anew
        Called when something may have gone unseen.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        kind: str,
        namespace: str | None,
        version: str,
        tell: Tell,
        began_anew: Callable[[], None],
    ) -> None:
        self._api = api
        self._kind = kind
        self._path = collection(kind, namespace)
        self._version = version
        self._tell = tell
        self._began_anew = began_anew

    async def run(self) -> None:
        """Follow them for ever, whatever the API server does."""
        in_vain = 0
        while True:
            before, why = self._version, None
            try:
                await self._watch()
            except ClusterError as error:
                why = error
            in_vain = 0 if self._version != before else in_vain + 1
            if why and why.status == _GONE:
                self._version = ""
                self._began_anew()
            pause = _PAUSES[min(in_vain, len(_PAUSES) - 1)] * random.uniform(0.5, 1)  # noqa: S311 - no secret
            if why:
                _log.info("the watch of %s has ended: %s; again in %.1f s", PLURALS[self._kind], why, pause)
            await asyncio.sleep(pause)

    async def _watch(self) -> None:
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", names.TASK_LABEL),
            ("timeoutSeconds", str(random.randint(*_SERVER_SECONDS))),  # noqa: S311 - no secret
            *([("resourceVersion", self._version)] if self._version else []),
        ]
        async with aclosing(self._api.watch(self._path, resource=PLURALS[self._kind], query=query)) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: object) -> None:
        match event:
            case {"type": "ERROR", "object": {"code": int(code), **rest}}:
                raise ClusterError(status=code, message=str(rest.get("message", "")))
            case {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}:
                self._version = version
            case {
                "type": "ADDED" | "MODIFIED" | "DELETED" as what,
                "object": {"metadata": {"resourceVersion": str(version), "name": str(), "namespace": str()}} as child,
            }:
                self._version = version
                self._tell(self._kind, child, gone=what == "DELETED")
            case _:
                raise ClusterError(status=0, message="what is told is no event")


class Following:
    """The watches of all kinds of children, while they go on.

    Parameters
    ----------
    api, tell, began_anew
        As of each `Follower`.
    """

    def __init__(self, api: ApiServer, *, tell: Tell, began_anew: Callable[[], None]) -> None:
        self._api = api
        self._tell = tell
        self._began_anew = began_anew
        self._watches: list[asyncio.Task[None]] = []

    def start(self, places: Iterable[tuple[str, str | None, str]]) -> None:
        """Begin to follow: kinds, in namespaces or everywhere, each from a resource version on."""
        for kind, namespace, version in places:
            follower = Follower(
                self._api,
                kind=kind,
                namespace=namespace,
                version=version,
                tell=self._tell,
                began_anew=self._began_anew,
            )
            self._watches.append(asyncio.create_task(follower.run(), name=f"{kind} of {namespace or 'all namespaces'}"))

    def ailment(self) -> str | None:
        """Say what only a restart can heal: a watch that has ended, which none ever should."""
        ended = (watch.get_name() for watch in self._watches if watch.done() and not watch.cancelled())
        return next((f"the watch of {name} has ended" for name in ended), None)

    async def stop(self) -> None:
        """Follow no longer."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
