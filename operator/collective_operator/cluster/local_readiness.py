"""Asks a program whether it is ready, by the page that its container declares."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 2.0
_STATUS_LINE_PARTS = 2


@dataclass(frozen=True, slots=True)
class Probe:
    """A page and its port. No port: ready as soon as it runs."""

    port: int | None
    path: str = "/"

    @classmethod
    def of(cls, container: Mapping[str, Any]) -> Probe:
        """Read a container's readiness probe."""
        page = container.get("readinessProbe", {}).get("httpGet")
        if page is None:
            return cls(None)
        named = {port.get("name"): port["containerPort"] for port in container.get("ports", ())}
        return cls(int(named.get(page["port"], page["port"])), page.get("path", "/"))


async def is_ready(host: str, probe: Probe) -> bool:
    """Probe once, within two seconds."""
    if probe.port is None:
        return True
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, probe.port)
            try:
                return await _answers(reader, writer, host, probe.path)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> bool:
    writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    await writer.drain()
    parts = (await reader.readline()).split()
    return len(parts) >= _STATUS_LINE_PARTS and parts[1].isdigit() and 200 <= int(parts[1]) < 400
