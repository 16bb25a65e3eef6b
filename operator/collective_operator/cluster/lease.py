"""The Lease that decides which operator acts, as an object of the API server."""

from __future__ import annotations

from typing import Any

import aiohttp

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.protocol import ClusterError, Manifest

_TIMEOUT = aiohttp.ClientTimeout(total=2)
"""So that a lost answer leaves time to ask again before the lease runs out."""


class KubernetesLease:
    """One Lease of coordination.k8s.io/v1.

    Parameters
    ----------
    api
        Not fenced: it is the lease that fences.
    namespace, name
        Where it is.
    """

    def __init__(self, *, api: ApiServer, namespace: str, name: str) -> None:
        self._api = api
        self._name = name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def read(self) -> Manifest | None:
        """Read it; None when there is none."""
        try:
            return await self._request("GET", verb="get")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, spec: Manifest) -> Manifest:
        """Create it."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": spec,
        }
        return await self._request("POST", verb="create", body=lease)

    async def replace(self, lease: Manifest, spec: Manifest) -> Manifest:
        """Give it another spec, if it is still as it was read."""
        return await self._request("PUT", verb="update", body={**lease, "spec": spec})

    async def _request(self, method: str, *, verb: str, body: dict[str, Any] | None = None) -> Manifest:
        path = self._collection if method == "POST" else f"{self._collection}/{self._name}"
        return await self._api.request(method, path, verb=verb, resource="leases", body=body, timeout=_TIMEOUT)
