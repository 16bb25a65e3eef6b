"""The disk that a task's state lies on: a small file system of its own, where it is to be filled."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from tally import POLL_S, BrokenError

SMALL_DISK_BYTES = 1 << 20


class Disk:
    """Where the state lies.

    Attributes
    ----------
    full
        Whether it is filled now.
    fillings
        How often it has been.
    """

    def __init__(self, state: Path) -> None:
        self.full = False
        self.fillings = 0
        self._state = state

    @contextlib.asynccontextmanager
    async def mounted(self, size: int | None) -> AsyncIterator[None]:
        """Have a disk for weights of a size; None: the folder lies on a disk that is never filled."""
        self._state.mkdir(parents=True)
        if size is None:
            yield
            return
        await _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES + 60 * size}", "tmpfs", str(self._state))
        try:
            yield
        finally:
            await _run("umount", "--lazy", str(self._state))

    async def fill(self, seconds: float, *, room: int) -> None:
        """Leave no more than some room for a while."""
        self.full = True
        self.fillings += 1
        filler = self._state / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                space = os.statvfs(self._state)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(1, space.f_bavail * space.f_frsize - room))
            await asyncio.sleep(seconds)
        finally:
            filler.unlink()
            self.full = False

    async def emptied(self) -> None:
        """Wait until it is not filled any more."""
        while self.full:  # noqa: ASYNC110 - one filling at a time, each of a second or so
            await asyncio.sleep(POLL_S)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise BrokenError(f"{' '.join(command)} failed")
