"""The API server for a person: beside objects, what comes while it happens, and what goes both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from collective_operator.cluster.api_server import ApiServer, message_of, read_bounded
from collective_operator.cluster.protocol import ClusterError

_ERROR_LIMIT = 64 * 1024
_HEARTBEAT_SECONDS = 30
_CAUSES = {403: "it takes the rights to get and to create {resource}", 404: "there is no such pod"}
"""Of a websocket that is not opened, by status: what the API server says of it does not come through."""


class StreamingApiServer(ApiServer):
    """Logs that are followed, and forwarded ports."""

    @asynccontextmanager
    async def stream(
        self, path: str, *, resource: str, query: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Read an answer while it comes, for as long as it takes.

        Raises
        ------
        ClusterError
            On any answer but a success, and on none.
        """
        code = 0
        try:
            request = await self._client.param_serialize(
                "GET", path, query_params=list(query), auth_settings=["BearerToken"], header_params={"Accept": "*/*"}
            )
            answer = await self._client.call_api(
                *request, _request_timeout=aiohttp.ClientTimeout(total=None, connect=10)
            )
            code = answer.status
            async with answer.response as response:
                if code != 200:
                    raise ClusterError(
                        status=code, message=message_of(await read_bounded(response, _ERROR_LIMIT), code)
                    )
                yield response.content
        except (aiohttp.ClientError, TimeoutError) as error:  # what befalls the caller's own output is no fault here
            raise ClusterError(status=0, message=f"get {resource}: {error or type(error).__name__}") from error
        finally:
            self._count(verb="get", resource=resource, code=code)

    @asynccontextmanager
    async def websocket(
        self, path: str, *, resource: str, query: Sequence[tuple[str, str]], protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket, and close it at the end.

        Raises
        ------
        ClusterError
            The API server does not let it be opened.
        """
        _, url, headers, *_ = await self._client.param_serialize(
            "GET", path, query_params=list(query), auth_settings=["BearerToken"], header_params={}
        )
        rest = self._client.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        options: dict[str, Any] = {"server_hostname": name} if (name := rest.configuration.tls_server_name) else {}
        if rest.proxy:
            options["proxy"] = rest.proxy
        code = 0
        try:
            async with rest.pool_manager.ws_connect(
                url, headers=headers, protocols=(protocol,), heartbeat=_HEARTBEAT_SECONDS, **options
            ) as socket:
                code = 101
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            code = error.status
            cause = _CAUSES.get(error.status, error.message).format(resource=resource)
            raise ClusterError(
                status=error.status, message=f"{resource}: refused with {error.status}: {cause}"
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:  # what befalls the caller's own output is no fault here
            raise ClusterError(status=0, message=f"{resource}: {error or type(error).__name__}") from error
        finally:
            self._count(verb="get", resource=resource, code=code)
