"""Requests to the Kubernetes API with plain dicts.

Every answer that is no success is one ClusterError, every request has a deadline, and each is counted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration

from collective_operator.cluster.connection import Connection, Query
from collective_operator.cluster.fence import Remaining, as_long_as
from collective_operator.cluster.json_text import decoded, prepare_for_deep_objects
from collective_operator.cluster.login import check_address, log_in, readable
from collective_operator.cluster.protocol import ClusterError
from collective_operator.shares import Shares

_TIMEOUT = aiohttp.ClientTimeout(total=40, connect=10)
"""An API server gives a change up after 34 seconds, and an admission webhook after 30, and says so then."""
_MESSAGE_LIMIT = 500
_TRIES = 4
"""Of a request that the API server did not take, and said when it would."""
_LONGEST_PAUSE_SECONDS = 10.0
_AT_ONCE = 128
"""Requests about tasks; those beyond wait, which keeps many tasks from flooding the API server."""
_CREATED_AT_ONCE, _CREATED_IN_ONE_NAMESPACE = 112, 96
"""Of those, what is created: a webhook that hangs, as those of pods do, is not to hold up what ends or stands still."""
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=150)
"""The API server marks its place in a watch once a minute: one that is silent for longer than two is broken."""


class CountRequest(Protocol):
    """Told of every request."""

    def __call__(self, *, verb: str, resource: str, code: int) -> None:
        """Count one."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, again and again where it has to be; see `ApiServer.request`."""

    method: str
    path: str
    verb: str
    resource: str
    query: Query = ()
    body: Mapping[str, Any] | None = None
    limit: int | None = None
    timeout: aiohttp.ClientTimeout = _TIMEOUT

    @property
    def namespace(self) -> str:
        """Where what it is about is; empty where that is nowhere."""
        return self.path.partition("/namespaces/")[2].partition("/")[0]


class ApiServer:
    """One API server, logged in to."""

    namespace = "default"
    """What the kubeconfig's context names, for people who name none."""

    def __init__(
        self,
        connection: Connection,
        count: CountRequest,
        *,
        remaining: Remaining | None = None,
        at_once: int | None = None,
    ) -> None:
        self._connection = connection
        self._count = count
        self._remaining = remaining
        self._gate = asyncio.Semaphore(at_once) if at_once else nullcontext()
        self._creating = Shares(_CREATED_AT_ONCE, of_one=_CREATED_IN_ONE_NAMESPACE) if at_once else None

    @classmethod
    async def connect(
        cls,
        *,
        in_cluster: bool,
        agent: str,
        count: CountRequest,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> Self:
        """Log in: with the pod's service account, or as a context of a kubeconfig says.

        Parameters
        ----------
        agent
            The User-Agent: who it is, in the API server's audit log.
        kubeconfig, context
            Others than `kubectl` would take by default.

        Raises
        ------
        kubernetes.aio.config.ConfigException
            There is no such kubeconfig or context, or it does not say enough.
        """
        prepare_for_deep_objects()
        configuration = Configuration()
        namespace = cls.namespace
        if in_cluster:
            cast("Any", config).load_incluster_config(client_configuration=configuration)
        else:
            namespace = await log_in(configuration, kubeconfig=kubeconfig, context=context) or namespace
        with readable(kubeconfig):
            configuration.proxy = configuration.proxy or _proxy_to(configuration.host)
            check_address(configuration.host)
            connection = Connection(configuration, agent=agent)
        api = cls(connection, count)
        api.namespace = namespace
        return api

    def acting(self, remaining: Remaining | None = None) -> ApiServer:
        """Give the same API server to whoever acts on tasks: so many requests at a time, the rest in their order.

        Parameters
        ----------
        remaining
            Tells for how many seconds it may change things if nothing more is heard; a request that does is not sent
            without them, and given up once there are none left.  None: for ever.
        """
        return ApiServer(self._connection, self._count, remaining=remaining, at_once=_AT_ONCE)

    def ailment(self) -> str | None:
        """Say what only a restart can heal: whom to trust is read once, and may be written anew."""
        return "the API server's certificate is not trusted" if self._connection.distrusts else None

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        resource: str,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        limit: int | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,  # noqa: ASYNC109 - aiohttp's own, it also bounds the connecting
    ) -> dict[str, Any]:
        """Send a request and return the object that answers it.

        Parameters
        ----------
        verb, resource
            How Kubernetes calls what is done, for the count.
        limit
            Bytes after which an answer is refused, when it does not come from the API server itself.

        Raises
        ------
        ClusterError
            On any answer but a success, and on none.
        """
        raw = await self._answered(_Request(method, path, verb, resource, query, body, limit, timeout))
        try:
            answered = decoded(raw)
        except ValueError as error:
            raise ClusterError(status=0, message=f"{verb} {resource}: the answer is no JSON") from error
        if not isinstance(answered, dict):
            raise ClusterError(status=0, message=f"{verb} {resource}: the answer is no object")
        return answered

    async def send(self, method: str, path: str, *, verb: str, resource: str, body: Mapping[str, Any]) -> None:
        """Send a request whose answer tells nothing but whether it is a success, as `request` does otherwise."""
        await self._answered(_Request(method, path, verb, resource, body=body))

    async def _answered(self, request: _Request) -> bytes:
        """Send a request until the API server takes it; return what answers it, which is a success."""
        # Of Events there is one at a time, and it is not to be lost behind what hangs.
        creating = self._creating if request.method == "POST" and request.resource != "events" else None
        for try_again in reversed(range(_TRIES)):
            # No time runs for a request that waits for others.
            async with creating.place(request.namespace) if creating else nullcontext(), self._gate:
                code, raw, pause = await self._answer(request)
            if pause is None or not try_again:
                break
            await asyncio.sleep(pause)
        if not 200 <= code < 300:
            raise ClusterError(status=code, message=message_of(raw, code))
        return raw

    async def _answer(self, request: _Request) -> tuple[int, bytes, float | None]:
        """Send a request once; return the status, the answer, and how long to wait before it is sent again."""
        code = 0
        try:
            remaining = self._remaining if request.method != "GET" else None
            async with (
                as_long_as(remaining),
                await self._connection.send(
                    request.method,
                    request.path,
                    query=request.query,
                    body=request.body,
                    remaining=remaining,
                    timeout=request.timeout,
                ) as response,
            ):
                code = response.status
                # What answers behind the API server's proxy makes nobody wait.
                pause = _pause(code, response.headers) if request.limit is None else None
                raw = await response.read() if request.limit is None else await read_bounded(response, request.limit)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(
                status=0, message=f"{request.verb} {request.resource}: {str(error) or type(error).__name__}"
            ) from error
        finally:
            self._count(verb=request.verb, resource=request.resource, code=code)
        return code, raw, pause

    async def watch(self, path: str, *, resource: str, query: Query) -> AsyncGenerator[dict[str, Any], None]:
        """Send a watch, which waits for no other request, and tell its events until the API server ends it.

        Parameters
        ----------
        path, resource, query
            What is watched; bookmarks are to be asked for, as nothing heard for too long ends it.

        Raises
        ------
        ClusterError
            It was refused, it broke, or it fell silent.
        """
        code = 0
        try:
            async with await self._connection.send("GET", path, query=query, timeout=_WATCH_TIMEOUT) as response:
                code = response.status
                if code != 200:
                    raise ClusterError(status=code, message=message_of(await response.read(), code))
                rest = b""
                async for part in response.content.iter_any():
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        yield decoded(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:  # some of which are ValueErrors, too
            raise ClusterError(status=0, message=f"watch {resource}: {str(error) or type(error).__name__}") from error
        except ValueError as error:
            raise ClusterError(status=0, message=f"watch {resource}: an event is no JSON") from error
        finally:
            self._count(verb="watch", resource=resource, code=code)


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read an answer that may be anything, up to a bound.

    Raises
    ------
    aiohttp.ClientPayloadError
        When there is more of it.
    """
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {limit} bytes")
    return b"".join(parts)


def _pause(code: int, headers: Mapping[str, str]) -> float | None:
    """Tell how long an API server that took no request wants it to be kept back; None when it did not say."""
    seconds = headers.get("Retry-After", "")
    if code not in (429, 503) or not seconds.isascii() or not seconds.isdigit():
        return None
    # Those that were turned away together are not to come back together.
    return min(float(seconds), _LONGEST_PAUSE_SECONDS) + random.random() / 2  # noqa: S311 - no secret


def _proxy_to(host: str) -> str | None:
    """Find the proxy that the environment names for an API server."""
    url = urlsplit(host)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


def message_of(raw: bytes, code: int) -> str:
    """Find the sentence in a Kubernetes Status, or take the text as it is; without any, the status has to do."""
    text = raw.decode(errors="replace").strip() or f"answered with {code}, and not a word"
    try:
        status = decoded(text.encode())
    except ValueError:
        return text[:_MESSAGE_LIMIT]
    said = status.get("message") if isinstance(status, dict) else None
    return str(said or text)[:_MESSAGE_LIMIT]
