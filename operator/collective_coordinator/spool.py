"""One proposal on disk: written while it arrives, read back by whoever is too slow for the stream.

The spool is what bounds memory: a model of any size and any number of slow learners cost a window of a few parts. It
lies beside the checkpoints, so that an accepted proposal becomes the checkpoint's weights by a rename. It is hashed
when somebody asks for its name and not while it arrives, where every core is busy moving it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from collective_learner.wire.digest import new_digest
from collective_learner.wire.parts import PART_BYTES, encode_part

_HASHED_BYTES = 4 << 20
"""Read and hashed at a time: enough for several cores, little beside the window of a transfer."""


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Serialised weights in a file.

    Parameters
    ----------
    path
        Where they are.
    digest
        BLAKE3 of them, 32 bytes.
    size
        In bytes, at least 1.
    """

    path: Path
    digest: bytes
    size: int


class Spool:
    """A file that one thread appends to while others read what is there already. All methods block: call in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        self._digest = new_digest()
        self._hashed = self._size = 0

    def append(self, *payloads: memoryview) -> None:
        """Write the next bytes."""
        for payload in payloads:
            written = 0
            while written < payload.nbytes:
                written += os.write(self._descriptor, payload[written:])
            self._size += payload.nbytes

    def read(self, offset: int, size: int) -> bytes:
        """Read what was appended before."""
        return read_exactly(self._descriptor, offset, size)

    def stored(self) -> StoredWeights:
        """Tell what lies there now; hashes what was appended since it was last asked."""
        while self._hashed < self._size:
            size = min(_HASHED_BYTES, self._size - self._hashed)
            self._digest.update(self.read(self._hashed, size))
            self._hashed += size
        return StoredWeights(path=self.path, digest=self._digest.digest(), size=self._size)

    def sync(self) -> None:
        """Return once the bytes survive a power cut."""
        os.fsync(self._descriptor)

    def discard(self) -> None:
        """Close the file, and delete it unless it has become a checkpoint's under another name."""
        os.close(self._descriptor)
        self.path.unlink(missing_ok=True)


class WriteBehind:
    """Parts on their way into a spool: in order, off the event loop, and several at once when the disk lags.

    Parameters
    ----------
    spool
        Where they go.
    writer
        One thread.
    """

    def __init__(self, spool: Spool, *, writer: Executor) -> None:
        self._spool = spool
        self._writer = writer
        self._waiting: list[memoryview] = []
        self._writing: asyncio.Future[None] | None = None
        self._ahead = 0

    def put(self, payload: memoryview) -> None:
        """Have it written."""
        self._waiting.append(payload)
        self._ahead += payload.nbytes
        if self._writing is None:
            self._write()

    async def settle(self, ahead: int) -> None:
        """Wait until at most `ahead` bytes are not written yet.

        Raises
        ------
        OSError
            The disk did not take them.
        """
        while self._writing is not None and (self._ahead > ahead or self._writing.done()):
            await asyncio.shield(self._writing)
            await asyncio.sleep(0)  # one that was done already has not told yet

    async def end(self) -> None:
        """Leave no thread writing into a spool that is about to be closed."""
        self._waiting.clear()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        size = sum(payload.nbytes for payload in batch)

        def written(writing: asyncio.Future[None]) -> None:
            if writing.cancelled() or writing.exception() is not None:
                return  # it stays, for whoever settles
            self._ahead -= size
            self._writing = None
            if self._waiting:
                self._write()

        self._writing = asyncio.get_running_loop().run_in_executor(self._writer, self._spool.append, *batch)
        self._writing.add_done_callback(written)


def read_exactly(descriptor: int, offset: int, size: int) -> bytes:
    """Read `size` bytes at `offset`; a file that ends before is an error, not a short answer."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            raise OSError(None, f"ends at byte {offset + len(data)}, before byte {offset + size}")
        data += more
    return data


async def parts_of(weights: StoredWeights, *, readers: Executor) -> AsyncGenerator[bytes, None]:
    """Read a file of weights as serialised parts, one at a time, off the event loop.

    The file stays readable to the end even if a later checkpoint deletes it meanwhile: its descriptor is open.
    """
    loop = asyncio.get_running_loop()
    descriptor = await loop.run_in_executor(readers, os.open, weights.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for offset in range(0, weights.size, PART_BYTES):
            size = min(PART_BYTES, weights.size - offset)
            payload = await loop.run_in_executor(readers, read_exactly, descriptor, offset, size)
            last = offset + size == weights.size
            yield encode_part(payload, offset=offset, total=weights.size, digest=weights.digest if last else None)
    finally:
        os.close(descriptor)
