"""The operator's HTTP port, to which anybody may come."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web
from tests.strangers import besieged, pester

from collective_web.open_port import MOST_CONNECTIONS, listening


def page() -> web.Application:
    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def broken(_: web.Request) -> web.Response:
        raise RuntimeError("our own fault")

    app = web.Application()
    app.add_routes([web.get("/healthz", ok), web.get("/broken", broken)])
    return app


async def test_rubbish_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with listening(page(), host="127.0.0.1", port=0) as port:
        await pester(port)
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_fault_of_our_own_is(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(page(), host="127.0.0.1", port=0) as port:
        assert b"500" in await first_line(port, "/broken")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "our own fault" in str(record.exc_info[1])


async def test_of_too_many_connections_the_oldest_are_given_up() -> None:
    async with listening(page(), host="127.0.0.1", port=0) as port:
        answer, gone = await besieged(port, connections=MOST_CONNECTIONS + 20)
    assert answer == b"HTTP/1.1 200 OK\r\n"
    assert gone >= 21, "those that were too many; all at once, a few more"
    assert gone < 100


async def first_line(port: int, path: str) -> bytes:
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return line
