"""The learner's plain HTTP port, to which anybody may come."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app
from tests.strangers import besieged, pester

from collective_learner.pages import _MOST_CONNECTIONS, serve_pages


async def test_strangers_neither_fill_the_log_nor_keep_probes_out(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pages = make_wsgi_app(CollectorRegistry())
    server, thread = serve_pages("127.0.0.1", 0, metrics=pages, probes={"/healthz": lambda: True})
    try:
        await pester(server.server_port)
        answer, gone = await besieged(server.server_port, connections=_MOST_CONNECTIONS + 20)
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join(60)
    assert answer == b"HTTP/1.0 200 OK\r\n"
    assert gone >= 21, "those that were too many; all at once, a few more"
    assert gone < 100
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr() == ("", "")
