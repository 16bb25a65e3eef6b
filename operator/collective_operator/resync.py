"""Looks at every unfinished task now and then, with no event at all, and tells by it whether the operator is alive.

Watches go deaf: connections that nobody closed, caches that skip.  A resync that needs no watch bounds what that costs,
and its ticking shows that the event loop turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.protocol import ClusterError, Manifest, TaskKey
from collective_operator.settings import Settings
from collective_operator.workers import Workers

_MISSED = 3

_log = logging.getLogger(__name__)


class Resync:
    """The resync's loop, and the operator's health."""

    def __init__(
        self, *, cluster: KubernetesCluster, workers: Workers, known: Callable[[], set[TaskKey]], settings: Settings
    ) -> None:
        self._cluster = cluster
        self._known = known
        self._workers = workers
        self._settings = settings
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._ticked: float | None = None

    async def run(self) -> None:
        """Wake what is unfinished, for ever.  kopf's first listing wakes everything once, so this one waits first."""
        while True:
            self._ticked = self._clock()
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                tasks = await self._cluster.list_tasks(self._settings.namespaces)
            except ClusterError as error:
                _log.warning("tasks could not be listed: %s", error)
                continue
            phases = {_key(task): (task.get("status") or {}).get("phase") for task in tasks}
            unfinished = {key for key, phase in phases.items() if phase not in ("Complete", "Failed")}
            # What is known and not listed is gone, and its series must go.
            for key in unfinished | (self._known() - phases.keys()):
                self._workers.wake(key)

    def ailment(self) -> str | None:
        """Say what only a restart can heal; that the API server does not answer, or another leads, is no such thing."""
        since = 0.0 if self._ticked is None else self._clock() - self._ticked
        if since > _MISSED * self._settings.resync_seconds:
            return f"no resync for {since:.0f} s"
        busy = self._workers.busy_seconds()
        if busy > self._settings.stuck_seconds:
            return f"a turn has been going on for {busy:.0f} s"
        return None


def _key(task: Manifest) -> TaskKey:
    return TaskKey(task["metadata"]["namespace"], task["metadata"]["name"])
