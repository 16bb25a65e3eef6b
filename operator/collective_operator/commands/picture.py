"""Draws rounds by the program that `collective run` uses too: matplotlib is large, and loaded by nobody else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

_SECONDS = 120.0


async def draw(rounds: Path, picture: Path) -> str | None:
    """Draw a picture of rounds; tell why, when there is none."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "collective_coordinator.plot", str(rounds), str(picture),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, said = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"drawing took longer than {_SECONDS:.0f} s"
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"drawing ended with {process.returncode}"
