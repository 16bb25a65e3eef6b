"""The way to an API server: the official client's logins, and requests as they are.

Of the official client only what it knows of logins is used: a configuration, with what it takes to speak TLS, and a
token that is read anew where it changes.  Its typed models cost seconds of import and a hundred megabytes, its dynamic
client asks the API server what it offers before it does anything, and its way of sending walks through every object
more than once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from collective_operator.cluster.fence import Fenced, Remaining
from collective_operator.cluster.json_text import encoded

_BUFFER_BYTES = 2**21
"""One event of a watch may be as large as an object may be."""
_HEARTBEAT_SECONDS = 30

Query = Sequence[tuple[str, str]]


class Connection:
    """Connections to one API server, as many as are in use; to be made where an event loop runs.

    Parameters
    ----------
    configuration
        Where it is, and how to log in.
    agent
        The User-Agent: who it is, in the API server's audit log.
    """

    def __init__(self, configuration: Configuration, *, agent: str) -> None:
        self._configuration = configuration
        self._host = configuration.host
        self._agent = agent
        self.distrusts = False
        """The last that answered was not one with a certificate of the authority that this process began with."""
        tls = RESTClientObject(configuration).ssl_context
        self._session = aiohttp.ClientSession(
            # Each watch holds a connection, and a Lease whose renewal waits for one behind a thousand tasks is lost.
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),
            # Left to itself aiohttp asks the environment for each request anew, in another thread each time.
            trust_env=False,
            read_bufsize=_BUFFER_BYTES,
        )
        self._options: dict[str, Any] = {
            option: value
            for option, value in (
                ("server_hostname", configuration.tls_server_name),
                ("proxy", configuration.proxy),
                ("proxy_headers", configuration.proxy_headers),
            )
            if value
        }

    async def close(self) -> None:
        """Close them."""
        await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        remaining: Remaining | None = None,
        accept: str = "application/json",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own, it also bounds the connecting
    ) -> aiohttp.ClientResponse:
        """Send a request, and return the answer, whose content is still to be read; a PATCH is a merge patch.

        Parameters
        ----------
        remaining
            For how many seconds a body may be sent; None: for ever.

        Raises
        ------
        aiohttp.ClientError, TimeoutError, OSError
            There is none.
        """
        content = None if body is None else encoded(body)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            answered = await self._session.request(
                method,
                self._url(path, query),
                data=Fenced(content, remaining) if content is not None and remaining else content,
                headers={**await self._headers(), "Accept": accept, "Content-Type": kind},
                timeout=timeout,
                # An API server sends nobody elsewhere; a pod behind its proxy might.
                allow_redirects=False,
                **self._options,
            )
        except aiohttp.ClientConnectorCertificateError:
            self.distrusts = True
            raise
        self.distrusts = False
        return answered

    async def websocket(self, path: str, *, query: Query, protocol: str) -> aiohttp.ClientWebSocketResponse:
        """Open a websocket.

        Raises
        ------
        aiohttp.ClientError, TimeoutError, OSError
            The API server does not let it be opened.
        """
        socket: aiohttp.ClientWebSocketResponse = await self._session.ws_connect(
            self._url(path, query),
            headers=await self._headers(),
            protocols=(protocol,),
            heartbeat=_HEARTBEAT_SECONDS,
            **self._options,
        )
        return socket

    async def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": self._agent}
        login = (await self._configuration.auth_settings()).get("BearerToken")
        if login and login["value"]:
            headers[login["key"]] = login["value"]
        return headers

    def _url(self, path: str, query: Query) -> str:
        return f"{self._host}{path}{'?' if query else ''}{urlencode(query, quote_via=quote)}"
