"""Asks a coordinator how far it is.

An operator in the cluster goes to the pod's address.  One on a developer's machine cannot, and goes through the API
server, which does not hand requests on to every address.  Either way a coordinator that does not answer in time, or
answers with something else than a short JSON object, has simply said nothing: nobody waits for it.  Many are asked at
once, within a bound, and the time that one has begins when it is asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp

from collective_operator.cluster.api_server import ApiServer, read_bounded
from collective_operator.cluster.protocol import ClusterError
from collective_operator.desired.coordinator_pod import own_container

_LIMIT = 256 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=3)
_AT_ONCE = 64
_AT_ONCE_BY_PROXY = 6
"""Fewer: each that hangs holds one of the API server's own requests."""

_log = logging.getLogger(__name__)


class AskCoordinator(Protocol):
    """A way to a coordinator's /status."""

    async def __call__(self, pod: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what it said; None when it said nothing of use."""


class DirectAccess:
    """To the pod's own address."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, pod: Mapping[str, Any]) -> dict[str, Any] | None:
        """Ask the pod itself."""
        async with self._gate:
            return await self._ask(pod)

    async def _ask(self, pod: Mapping[str, Any]) -> dict[str, Any] | None:
        address = pod["status"].get("podIP", "")
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{_port(pod)}/status"
        try:
            async with self._session.get(url, timeout=_TIMEOUT, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                said = json.loads(await read_bounded(response, _LIMIT))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            _log.debug("%s did not answer: %s", pod["metadata"]["name"], error)
            return None
        return said if isinstance(said, dict) else None


class ProxyAccess:
    """Through the API server, which needs the right to get pods/proxy."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._gate = asyncio.Semaphore(_AT_ONCE_BY_PROXY)

    async def __call__(self, pod: Mapping[str, Any]) -> dict[str, Any] | None:
        """Ask by the API server's hand."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{_port(pod)}/proxy/status"
        try:
            async with self._gate:
                return await self._api.request(
                    "GET", path, verb="get", resource="pods/proxy", limit=_LIMIT, timeout=_TIMEOUT
                )
        except ClusterError as error:
            _log.debug("%s did not answer: %s", metadata["name"], error)
            return None


def _port(pod: Mapping[str, Any]) -> int:
    """Read where a coordinator serves, as its pod says: it may have been made by another version of this operator."""
    for port in own_container(pod).get("ports") or ():
        if port.get("name") == "http":
            return int(port["containerPort"])
    return 8080
