"""Events: in their order, behind everything else, and never what anything waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from collective_operator.cluster import announcer as module
from collective_operator.cluster.announcer import Announcer
from collective_operator.cluster.protocol import ClusterError

from .virtual_time import on_virtual_time


class Server:
    """Takes Events, one by one when it has a gate, and none that it refuses."""

    def __init__(self, *, gate: asyncio.Semaphore | None = None, refuses: str = "") -> None:
        self.gate, self.refuses = gate, refuses
        self.there: list[str] = []
        self.at_once = self.most = 0

    async def send(self, method: str, path: str, *, verb: str, resource: str, body: Mapping[str, Any]) -> None:
        assert (method, path, verb, resource) == ("POST", "/api/v1/namespaces/default/events", "create", "events")
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await (self.gate.acquire() if self.gate else asyncio.sleep(0))
        self.at_once -= 1
        if body["reason"] == self.refuses:
            raise ClusterError(status=403, message="the namespace is being terminated")
        self.there.append(body["reason"])


def event(reason: str) -> dict[str, Any]:
    about = {"namespace": "default", "name": "digits"}
    return {"metadata": {"namespace": "default"}, "reason": reason, "involvedObject": about}


async def test_they_come_one_by_one_in_their_order() -> None:
    server = Server()
    announcer = Announcer(cast("Any", server))
    for reason in "abc":
        announcer.announce(event(reason))
    assert not server.there, "nobody waits for them"
    await announcer.close()
    announcer.announce(event("d"))
    await announcer.close()
    assert (server.there, server.most) == ([*"abcd"], 1)


async def test_one_that_is_refused_is_lost_alone_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(refuses="b")
    announcer = Announcer(cast("Any", server))
    for reason in "abc":
        announcer.announce(event(reason))
    await announcer.close()
    assert server.there == [*"ac"]
    (line,) = caplog.messages
    assert (
        line == "events not published: 1; the last of them: b of default/digits: 403: the namespace is being terminated"
    )


async def test_the_oldest_of_too_many_give_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LIMIT", 2)
    server = Server(gate=asyncio.Semaphore(0))
    announcer = Announcer(cast("Any", server))
    announcer.announce(event("a"))
    await asyncio.sleep(0)  # it is on its way
    for reason in "bcde":
        announcer.announce(event(reason))
    assert server.gate
    for _ in range(3):
        server.gate.release()
    await announcer.close()
    assert server.there == [*"ade"]
    assert caplog.messages == ["events not published: 2; the last of them: c of default/digits: too many wait"]


def test_one_that_is_not_taken_holds_up_the_others_for_so_long(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = Server(gate=asyncio.Semaphore(0))
        announcer = Announcer(cast("Any", server))
        for reason in "ab":
            announcer.announce(event(reason))
        await asyncio.sleep(15)
        assert server.gate
        server.gate.release()
        await announcer.close()
        assert server.there == ["b"]

    on_virtual_time(main)
    assert caplog.messages == ["events not published: 1; the last of them: a of default/digits: not taken within 10 s"]


async def test_an_end_waits_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LAST_SECONDS", 0.05)
    announcer = Announcer(cast("Any", Server(gate=asyncio.Semaphore(0))))
    for reason in "abc":
        announcer.announce(event(reason))
    async with asyncio.timeout(60):
        await announcer.close()
    assert caplog.messages == ["events not published: 2; the last of them: c of default/digits: the operator ends"]
