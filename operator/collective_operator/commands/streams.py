"""The API server for a person: beside objects, what comes while it happens, and what goes both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from collective_operator.cluster.api_server import ApiServer, message_of, read_bounded
from collective_operator.cluster.connection import Query
from collective_operator.cluster.protocol import ClusterError

_ERROR_LIMIT = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10)
_CAUSES = {403: "it takes the rights to get and to create {resource}", 404: "there is no such pod"}
"""Of a websocket that is not opened, by status: what the API server says of it does not come through."""


class StreamingApiServer(ApiServer):
    """Logs that are followed, and forwarded ports."""

    @asynccontextmanager
    async def stream(self, path: str, *, resource: str, query: Query = ()) -> AsyncIterator[aiohttp.StreamReader]:
        """Read an answer while it comes, for as long as it takes.

        Raises
        ------
        ClusterError
            On any answer but a success, and on none.
        """
        code = 0
        try:
            answer = await self._connection.send("GET", path, query=query, accept="*/*", timeout=_TIMEOUT)
            async with answer as response:
                code = response.status
                if code != 200:
                    raise ClusterError(
                        status=code, message=message_of(await read_bounded(response, _ERROR_LIMIT), code)
                    )
                yield response.content
        except (aiohttp.ClientError, TimeoutError) as error:  # what befalls the caller's own output is no fault here
            raise ClusterError(status=0, message=f"get {resource}: {str(error) or type(error).__name__}") from error
        finally:
            self._count(verb="get", resource=resource, code=code)

    @asynccontextmanager
    async def websocket(
        self, path: str, *, resource: str, query: Query, protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket, and close it at the end.

        Raises
        ------
        ClusterError
            The API server does not let it be opened.
        """
        code = 0
        try:
            async with await self._connection.websocket(path, query=query, protocol=protocol) as socket:
                code = 101
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            code = error.status
            cause = _CAUSES.get(error.status, error.message).format(resource=resource)
            raise ClusterError(
                status=error.status, message=f"{resource}: refused with {error.status}: {cause}"
            ) from error
        except (aiohttp.ClientError, TimeoutError) as error:  # what befalls the caller's own output is no fault here
            raise ClusterError(status=0, message=f"{resource}: {str(error) or type(error).__name__}") from error
        finally:
            self._count(verb="get", resource=resource, code=code)
