"""Publishes Events, one after the other and behind everything else.

An Event tells people what the status says anyway. Where a thousand tasks begin, none waits for its Event, and a pod
that has died does not wait behind the Events of others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.protocol import ClusterError

_LIMIT = 5000
"""Those that wait: more than a thousand tasks have to say when they begin.  The oldest give way, being old news."""
_LONGEST_SECONDS = 10.0
"""For one: a webhook that hangs, in one namespace, is not to hold up what is to be told in the others for longer."""
_LAST_SECONDS = 1.0
"""Whoever ends waits no longer: another operator is to lead at once."""

_log = logging.getLogger(__name__)


class Announcer:
    """Those that are still to be published.

    Parameters
    ----------
    api
        Where to.
    """

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost, self._why = 0, ""
        self._publishing: asyncio.Task[None] | None = None

    def announce(self, event: dict[str, Any]) -> None:
        """Have an Event published; one that cannot be is lost, and the log says so."""
        if len(self._waiting) == _LIMIT:
            self._lose(self._waiting.popleft(), "too many wait")
        self._waiting.append(event)
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish(), name="events")

    async def close(self) -> None:
        """Publish what is left, for a moment."""
        if self._publishing:
            await asyncio.wait({self._publishing}, timeout=_LAST_SECONDS)
            self._publishing.cancel()
        while self._waiting:
            self._lose(self._waiting.popleft(), "the operator ends")
        self._tell_of_the_lost()

    async def _publish(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    await self._api.send("POST", path, verb="create", resource="events", body=event)
            except ClusterError as error:
                self._lose(event, str(error))
            except TimeoutError:
                self._lose(event, f"not taken within {_LONGEST_SECONDS:.0f} s")
        self._tell_of_the_lost()

    def _lose(self, event: dict[str, Any], why: str) -> None:
        about = event["involvedObject"]
        self._lost, self._why = self._lost + 1, f"{event['reason']} of {about['namespace']}/{about['name']}: {why}"

    def _tell_of_the_lost(self) -> None:
        """Say how many were lost, and why the last was: a line for each of thousands would hide all else."""
        if self._lost:
            _log.warning("events not published: %d; the last of them: %s", self._lost, self._why)
        self._lost = 0
