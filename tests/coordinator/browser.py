"""A real browser without a screen, told what to do over its own protocol (Chrome DevTools).

One page, its size as a phone's or a desk's, what it logs, and every address that it asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_PAUSE_S = 0.1


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.asked: list[str] = []
        """Addresses that it asked for."""
        self.complaints: list[str] = []
        """Errors, warnings and what its security policy refused."""
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
            elif event["method"] == "Network.requestWillBeSent":
                self.asked.append(event["params"]["request"]["url"])
            elif event["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))
            elif event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled"):
                self.complaints.append(json.dumps(event["params"]))

    async def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(60):
            said = await answer
        assert "error" not in said, said
        return dict(said["result"])

    async def evaluate(self, expression: str) -> Any:
        answer = await self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str, *, patience_s: float = 90.0) -> Any:
        """Wait until an expression is true, and give it."""
        for _ in range(int(patience_s / _PAUSE_S)):
            if value := await self.evaluate(expression):
                return value
            await asyncio.sleep(_PAUSE_S)
        text = await self.evaluate("document.body.innerText")
        raise AssertionError(f"never true: {expression}; the page says {text}")

    async def resize(self, width: int, height: int, *, phone: bool) -> None:
        await self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    async def close(self) -> None:
        self._listening.cancel()
        await self._socket.close()


@contextlib.asynccontextmanager
async def browsing(address: str, profile: Path) -> AsyncIterator[Page]:
    """Open an address in a fresh browser."""
    assert PROGRAM is not None
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    browser = await asyncio.create_subprocess_exec(
        PROGRAM,
        "--headless",
        *sandbox,
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert browser.stderr is not None
    try:
        async with asyncio.timeout(90):
            while b"DevTools listening on " not in (line := await browser.stderr.readline()):
                assert line, "the browser did not start"
        draining = asyncio.create_task(browser.stderr.read())
        base = line.decode().split("//")[1].split("/")[0]
        async with aiohttp.ClientSession() as session:
            target = await _first_page(session, base)
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page.tell(f"{domain}.enable")
                await page.tell("Page.navigate", url=address)
                yield page
                await page.close()
        draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, 9)
        await browser.wait()


async def _first_page(session: aiohttp.ClientSession, base: str) -> dict[str, Any]:
    """Wait for the page that the browser begins with, which may come after its protocol."""
    async with asyncio.timeout(90):
        while True:
            async with session.get(f"http://{base}/json/list") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            if pages:
                return dict(pages[0])
            await asyncio.sleep(_PAUSE_S)
