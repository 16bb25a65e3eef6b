"""Writes files to a place that fsspec reaches; a program of its own (see `child`), for `delivery`.

A file is there whole or not at all. Object stores give a name to bytes once all have come; on a disk each is written
aside and renamed. Buckets are never made: a mistyped one must be an error and not a new bucket.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from collective_coordinator.child import Parent, shortened
from collective_learner.data.stores import StoreUnknownError, store_of, told

CHECK = ".collective-write-check"
"""What is written, and taken away again, to see whether a place can be written to."""

_CHUNK = 4 << 20
_BLOCK = 8 << 20
"""Sent at once: a slow line must get one through before its time is over."""
_MOST_PARTS = 9000
"""A store takes 10,000 parts of one object at most; a larger file goes in larger parts."""
_LOCAL = ("file", "local")
_WITH_FOLDERS = (*_LOCAL, "sftp", "ssh", "smb", "hdfs", "webhdfs")
_FINAL = (
    StoreUnknownError,
    ImportError,
    NotImplementedError,
    PermissionError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
)
"""What asking again does not mend."""


class Place:
    """A folder, or what stands for one in an object store."""

    def __init__(self, url: str) -> None:
        self._system, self._path = store_of(url)
        protocol = self._system.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)

    def check(self) -> None:
        """Write something small, and take it away again where that is allowed."""
        self._make()
        name = f"{self._path}/{CHECK}"
        self._write(name, [b""], lambda _: None)
        try:
            self._system.rm_file(name)
        except Exception:  # noqa: BLE001 - whatever the store says: who may only write can leave nothing better
            return

    def take(self, source: str, name: str, sent: Callable[[int], None]) -> None:
        """Copy a file there; `sent` is told the bytes of each piece that was taken."""
        self._make()
        aside = f"{self._path}/.{name}.part" if self._protocols & {*_LOCAL} else None
        target = f"{self._path}/{name}"
        size = os.path.getsize(source)
        try:
            with open(source, "rb") as file:
                self._write(aside or target, iter(lambda: file.read(_CHUNK), b""), sent, size=size)
            if aside is not None:
                with open(aside, "rb") as written:
                    os.fsync(written.fileno())
                os.replace(aside, target)
        finally:
            if aside is not None:
                Path(aside).unlink(missing_ok=True)

    def _make(self) -> None:
        if self._protocols & {*_WITH_FOLDERS}:
            self._system.makedirs(self._path, exist_ok=True)

    def _write(self, name: str, pieces: Iterable[bytes], sent: Callable[[int], None], *, size: int = 0) -> None:
        block = max(_BLOCK, -(-size // (_MOST_PARTS << 20)) << 20)
        file = self._system.open(name, "wb", block_size=block)
        try:
            for piece in pieces:
                file.write(piece)
                sent(len(piece))
        except BaseException:
            # To close it would give the object its name, with half of the bytes; on a disk it has another name yet.
            with contextlib.suppress(Exception):
                file.close() if self._protocols & {*_LOCAL} else file.discard()
            raise
        file.close()


def main() -> None:
    """Do one job: ``{"url", "files": [{"path", "name"}]}``; without files, look whether it could be done."""
    parent = Parent()
    try:
        place = Place(parent.job["url"])
        parent.answer(begun=True)
        if not parent.job["files"]:
            place.check()
        for file in parent.job["files"]:
            place.take(file["path"], file["name"], lambda size: parent.answer(sent=size))
            parent.answer(sent=0)
    except Exception as error:  # noqa: BLE001 - each backend of fsspec raises what it likes
        message = str(error) if isinstance(error, StoreUnknownError) else told(error)
        parent.leave(error=shortened(message), final=isinstance(error, _FINAL))
    parent.leave(done=True)


if __name__ == "__main__":
    main()
