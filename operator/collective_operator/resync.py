"""Lists everything now and then, to correct what is remembered, and tells by it whether the operator is alive.

Watches go deaf: connections that nobody closed, caches that skip.  A listing that needs no watch bounds what that
costs, and its ticking shows that the event loop turns.  It costs a request for each page, one every few seconds unless
there is a reason to hurry, and wakes every task that has not ended, which costs none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.listing import Pause
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.settings import Settings
from collective_operator.workers import Workers

_MISSED = 3
_SETTLE_SECONDS = 10
"""After a watch has begun anew: others may be about to, and they all have one cause."""
_PAGES = 100
"""In a hundredth of the time between two listings comes a page of one that nothing has given a reason for.  A thousand
tasks come to some thirty pages, and an API server remembers for five minutes what it has begun to list."""

_log = logging.getLogger(__name__)


class Resync:
    """The resync's loop, and the operator's health."""

    def __init__(
        self,
        *,
        cluster: KubernetesCluster,
        memory: Memory,
        workers: Workers,
        known: Callable[[], set[TaskKey]],
        settings: Settings,
    ) -> None:
        self._cluster = cluster
        self._memory = memory
        self._known = known
        self._workers = workers
        self._settings = settings
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._ticked: float | None = None
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """Have everything listed soon: something may have gone unseen."""
        self._doubt.set()

    async def once(self, *, pause: Pause | None = None) -> None:
        """List everything, and wake whoever has something to do."""
        for namespace in self._settings.namespaces or (None,):
            try:
                news = await self._cluster.refresh(namespace, pause=pause)
            except ClusterError as error:
                # One that is gone, with its rights, is no reason to be deaf to the others.
                _log.warning("tasks%s could not be listed: %s", f" of {namespace}" if namespace else "", error)
                self.doubt()
            else:
                self._wake(news, namespace)

    def _wake(self, news: set[TaskKey], namespace: str | None) -> None:
        """Wake those in a namespace, or everywhere, that have not ended or are otherwise than remembered."""
        phases = {key: (task.get("status") or {}).get("phase") for key, task in self._memory.tasks().items()}
        unfinished = {key for key, phase in phases.items() if phase not in ("Complete", "Failed")}
        # What is known and not listed is gone, and its series must go.
        for key in unfinished | news | (self._known() - phases.keys()):
            if namespace in (None, key.namespace):
                self._workers.wake(key)

    async def run(self) -> None:
        """List everything again and again, for ever."""
        while True:
            doubted = await self._doubted_within(self._settings.resync_seconds)
            if doubted:
                await asyncio.sleep(_SETTLE_SECONDS)
            self._doubt.clear()
            await self.once(pause=None if doubted else self._unhurried)

    async def _unhurried(self) -> None:
        """Wait before a page, unless there is a reason to hurry by now."""
        await self._doubted_within(self._settings.resync_seconds / _PAGES)

    async def _doubted_within(self, seconds: float) -> bool:
        """Wait for a reason to list, for so long; tell whether there is one."""
        self._ticked = self._clock()
        try:
            async with asyncio.timeout(seconds):
                return await self._doubt.wait()
        except TimeoutError:
            return False

    def ailment(self) -> str | None:
        """Say what only a restart can heal; that the API server does not answer, or another leads, is no such thing."""
        since = 0.0 if self._ticked is None else self._clock() - self._ticked
        if since > _MISSED * self._settings.resync_seconds:
            return f"no resync for {since:.0f} s"
        busy = self._workers.busy_seconds()
        if busy > self._settings.stuck_seconds:
            return f"a turn has been going on for {busy:.0f} s"
        return None
