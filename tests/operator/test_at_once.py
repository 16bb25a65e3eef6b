"""Many tasks at once: how much is asked at a time, and what must not wait behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from collective_operator.cluster import asking, coordinator_status
from collective_operator.cluster.api_server import ApiServer, _proxy_to
from collective_operator.cluster.connection import Connection
from collective_operator.cluster.coordinator_status import DirectAccess
from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.protocol import ClusterError, TaskKey

from .test_memory import TASK, pod, task


class Server:
    """Holds every request until it is told to answer."""

    def __init__(self) -> None:
        self.now = self.most = self.asked = 0
        self.may_answer = asyncio.Event()
        self.port = 0
        self.elsewhere: str | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.elsewhere:
            raise web.HTTPTemporaryRedirect(self.elsewhere)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if not request.path.endswith("/leases/one"):
                await self.may_answer.wait()
        finally:
            self.now -= 1
        return web.json_response({"who": request.headers.get("Authorization"), "query": request.query_string})

    async def waits_for(self, count: int, *, asked: int = 0) -> None:
        async with asyncio.timeout(60):
            while self.now < count or self.asked < asked:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)


def pass_on(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have the event loop's clock go on by so much: deadlines come nearer, however long this machine takes."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + seconds)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.add_routes([web.route("*", "/{path:.*}", server.answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        server.may_answer.set()
        await runner.cleanup()


@asynccontextmanager
async def api_of(server: Server) -> AsyncIterator[ApiServer]:
    configuration = Configuration(host=f"http://127.0.0.1:{server.port}")
    configuration.api_key = {"BearerToken": "Bearer secret"}
    api = ApiServer(Connection(configuration, agent="a test"), lambda **_: None)
    try:
        yield api
    finally:
        await api.close()


async def test_tasks_wait_for_one_another_and_a_lease_for_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server, api_of(server) as api:
        acting = api.acting()
        short, long = aiohttp.ClientTimeout(total=30), aiohttp.ClientTimeout(total=300)
        many = [
            asyncio.create_task(acting.request("GET", f"/pods/{number}", verb="get", resource="pods", timeout=long))
            for number in range(180)
        ]
        await server.waits_for(128)
        late = asyncio.create_task(acting.request("POST", "/pods", verb="create", resource="pods", timeout=short))
        answer = await api.request(
            "GET", "/leases/one", verb="get", resource="leases", query=[("a", "b c=d")], timeout=long
        )
        assert answer == {"who": "Bearer secret", "query": "a=b c%3Dd"}
        pass_on(monkeypatch, 31)
        await asyncio.sleep(0.1)
        assert server.now == 128, "the others have not been sent"
        server.may_answer.set()
        await asyncio.wait_for(late, 60)
        await asyncio.gather(*many)
        assert server.most <= 129, "and the Lease's"


async def test_what_ends_does_not_wait_for_what_is_created() -> None:
    """A webhook that hangs holds each creation for ten seconds, and a task that is to stand still holds its GPUs."""
    async with serving() as server, api_of(server) as api:
        acting = api.acting()

        def create(namespace: str) -> asyncio.Task[dict[str, Any]]:
            path = f"/api/v1/namespaces/{namespace}/pods"
            return asyncio.create_task(acting.request("POST", path, verb="create", resource="pods"))

        many = [create("hangs") for _ in range(140)]
        await server.waits_for(96)
        await asyncio.sleep(0.1)
        assert server.now == 96, "the others have not been sent"
        many += [create("works") for _ in range(40)]
        await server.waits_for(112)
        await asyncio.sleep(0.1)
        assert server.now == 112, "nor have these all been"
        late = asyncio.create_task(acting.request("DELETE", "/pods/0", verb="delete", resource="pods"))
        await server.waits_for(113)
        event = asyncio.create_task(acting.send("POST", "/events", verb="create", resource="events", body={}))
        await server.waits_for(114)
        server.may_answer.set()
        await asyncio.gather(late, event, *many)
        assert server.asked == 182


async def test_nobody_is_sent_elsewhere() -> None:
    """A pod behind the API server's proxy could name any address, and would be asked there with a token."""
    async with serving() as server, serving() as other, api_of(server) as api:
        server.elsewhere = f"http://127.0.0.1:{other.port}/leases/one"
        for method in ("GET", "POST"):
            with pytest.raises(ClusterError) as raised:
                await api.request(method, "/pods", verb="get", resource="pods")
            assert raised.value.status == 307
        assert (server.asked, other.asked) == (2, 0)


async def test_a_fence_is_looked_at_when_the_turn_has_come() -> None:
    async with serving() as server, api_of(server) as api:
        left = 5.0
        acting = api.acting(lambda: left)
        many = [asyncio.create_task(acting.request("GET", "/pods", verb="list", resource="pods")) for _ in range(128)]
        await server.waits_for(128)
        late = asyncio.create_task(acting.request("POST", "/pods", verb="create", resource="pods"))
        await asyncio.sleep(0.05)
        left = 0.0
        server.may_answer.set()
        await asyncio.gather(*many)
        with pytest.raises(Exception, match="this operator does not lead"):
            await late
        assert server.asked == 128


async def test_a_request_goes_on_for_as_long_as_its_sender_leads_and_not_for_as_long_as_it_led_then() -> None:
    """An admission webhook that nobody answers takes longer than a leadership that is renewed all the time lasts."""
    async with serving() as server, api_of(server) as api:
        left = 0.1
        acting = api.acting(lambda: left)
        asked = asyncio.create_task(acting.request("POST", "/pods", verb="create", resource="pods"))
        await server.waits_for(1)
        await asyncio.sleep(0.4)
        assert not asked.done(), "it led when it was asked, and leads"
        left = 0.0
        with pytest.raises(ClusterError, match="create pods: given up, this operator does not lead any more"):
            await asyncio.wait_for(asked, 10)


async def test_a_fence_is_looked_at_when_there_is_a_connection() -> None:
    """A leader that was stopped while it connected would send when it wakes up."""
    async with serving() as server, api_of(server) as api:
        server.may_answer.set()
        left = list[float]()
        acting = api.acting(lambda: left.pop() if left else 0.0)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            left.append(5.0)
            with pytest.raises(ClusterError, match="create pods: not sent, this operator does not lead"):
                await acting.request(method, "/pods", verb="create", resource="pods", body={"kind": "Pod"})
        assert server.asked == 0


@pytest.mark.parametrize(
    ("proxy", "exempt", "host", "found"),
    [
        ("http://proxy:3128", "", "https://cluster.example:6443", "http://proxy:3128"),
        ("http://proxy:3128", "cluster.example", "https://cluster.example:6443", None),
        ("http://proxy:3128", "*", "https://cluster.example:6443", None),
        ("", "", "https://cluster.example:6443", None),
    ],
)
def test_the_environment_s_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: str, exempt: str, host: str, found: str | None
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", exempt)
    assert _proxy_to(host) == found


def coordinator(port: int) -> dict[str, Any]:
    running = pod("digits-coordinator", 2)
    running["metadata"]["ownerReferences"] = [{"uid": "task-uid"}]
    running["spec"]["containers"] = [{"name": "coordinator", "ports": [{"name": "http", "containerPort": port}]}]
    running["status"]["podIP"] = "127.0.0.1"
    return running


async def test_coordinators_are_asked_many_at_once_and_each_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_status, "_TIMEOUT", aiohttp.ClientTimeout(total=60))
    async with serving() as server, aiohttp.ClientSession() as session:
        ask = DirectAccess(session)
        many = [asyncio.create_task(ask(coordinator(server.port))) for _ in range(200)]
        for asked in (64, 128):
            await server.waits_for(64, asked=asked)
            await asyncio.sleep(0.05)
            assert (server.now, server.asked) == (64, asked)
            pass_on(monkeypatch, 40)
            server.may_answer.set()
            server.may_answer = asyncio.Event()
        await server.waits_for(64, asked=192)
        server.may_answer.set()
        assert all(await asyncio.gather(*many)), "none was given up while it waited to be asked"
        assert server.most == 64


async def test_a_coordinator_is_asked_at_its_own_port_whatever_a_mesh_put_before_it() -> None:
    async with serving() as server, aiohttp.ClientSession() as session:
        server.may_answer.set()
        asked = coordinator(server.port)
        asked["spec"]["containers"].insert(0, {"name": "proxy", "ports": [{"name": "http", "containerPort": 1}]})
        assert await DirectAccess(session)(asked) is not None


async def test_who_is_silent_is_asked_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked, answer = 1000.0, list[float](), list[dict[str, Any]]()

    async def ask(_: Any) -> dict[str, Any] | None:
        asked.append(now)
        return answer[0] if answer else None

    memory, unused = Memory(), cast("Any", None)
    cluster = KubernetesCluster(api=unused, ask=ask, memory=memory, keeper=unused, vigil=cast("Any", Never()))
    there = task() | {"status": {"phase": "Running"}}
    memory.tell(TASK, there)
    memory.tell("Pod", coordinator(1))
    memory.record(TaskKey("default", "digits")).complete = True
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    for _ in range(1200):
        seen = await cluster.observe(there, anew=False)
        assert (seen.progress, seen.silent_seconds) == (None, now - 1000.0)
        now += 0.5
    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, asking._MOST_PATIENT_SECONDS)
    answer.append({"phase": "Running", "uid": "of-another-task"})
    now += asking._MOST_PATIENT_SECONDS
    seen = await cluster.observe(there, anew=False)
    assert (seen.progress, seen.silent_seconds) == (None, now - 1000.0), "what is not its own word is no answer"
    answer[0]["uid"] = there["metadata"]["uid"]
    now += asking._MOST_PATIENT_SECONDS
    assert (await cluster.observe(there, anew=False)).progress
    count = len(asked)
    for _ in range(3):
        now += 0.5
        assert (await cluster.observe(there, anew=False)).silent_seconds == 0
    assert len(asked) == count + 3, "who answers is asked each time"


class Never:
    """A vigil that never comes."""

    def due(self, _: TaskKey, *, secrets: int) -> bool:
        return False
