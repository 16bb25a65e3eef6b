"""Where a learner's data lies: a folder, a file, or any URL that fsspec has a backend for.

A path never needs fsspec, and a URL whose backend is absent says which package brings it. What is asked of a place is
little, so that object stores and web servers can answer: whether a name is there, its bytes, and, where there are
folders, what is in them.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from collective_learner.data.stores import StoreUnknownError, store_of, told

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


class DataRefusedError(ValueError):
    """Data is missing, or is not what its name says; the message names the place and what is expected there."""


class Place(Protocol):
    """A folder with a data set, or one file of it."""

    @property
    def shown(self) -> str:
        """As the task has it, for messages."""

    def is_file(self) -> bool:
        """Whether the place is one file rather than a folder."""

    def has(self, name: str) -> bool:
        """Whether a file is in the folder."""

    def open(self, name: str = "") -> IO[bytes]:
        """Open a file in the folder, or with no name the place itself."""

    def files(self) -> list[str]:
        """Name all files in the folder and below, with forward slashes, sorted."""


def place_of(location: object) -> Place:
    """Find what a location means.

    Raises
    ------
    DataRefusedError
        It is no text, nothing is there, or a URL's backend is not installed.
    """
    if not isinstance(location, str) or not location:
        raise DataRefusedError(f"location: {location!r}, a path or a URL is needed")
    if _URL.match(location):
        return _remote(location)
    path = Path(location).expanduser()
    if not path.exists():
        raise DataRefusedError(f"location: {location!r}, there is no such file or folder")
    return _Local(location, path)


def first_of(place: Place, names: Iterable[str]) -> str | None:
    """Find the first of these names that is there, as it is or packed with gzip."""
    return next((each for name in names for each in (name, f"{name}.gz") if place.has(each)), None)


def read(place: Place, name: str = "") -> bytes:
    """Read a whole file, unpacked if its name ends in .gz.

    Raises
    ------
    DataRefusedError
        It cannot be read, or is torn.
    """
    try:
        with place.open(name) as file:
            content = file.read()
    except Exception as error:  # each backend of fsspec raises what it likes
        raise DataRefusedError(f"{place.shown}: {name!r} cannot be read: {told(error)}") from error
    if not (name or place.shown).endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataRefusedError(f"{place.shown}: {name!r} is no whole gzip file ({error})") from error


@dataclass(frozen=True)
class _Local:
    shown: str
    path: Path

    def is_file(self) -> bool:
        return self.path.is_file()

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def open(self, name: str = "") -> IO[bytes]:
        return (self.path / name).open("rb")

    def files(self) -> list[str]:
        return sorted(each.relative_to(self.path).as_posix() for each in self.path.rglob("*") if each.is_file())


@dataclass(frozen=True)
class _Remote:
    shown: str
    system: Any
    path: str

    def is_file(self) -> bool:
        return bool(self.system.isfile(self.path))

    def has(self, name: str) -> bool:
        return bool(self.system.exists(f"{self.path}/{name}"))

    def open(self, name: str = "") -> IO[bytes]:
        file: IO[bytes] = self.system.open(f"{self.path}/{name}" if name else self.path, "rb")
        return file

    def files(self) -> list[str]:
        return sorted(found.removeprefix(self.path).lstrip("/") for found in self.system.find(self.path))


def _remote(url: str) -> Place:
    try:
        system, path = store_of(url)
    except StoreUnknownError as error:
        raise DataRefusedError(f"location: {error}") from error
    try:
        system.info(path)
    except Exception as error:  # as in `read`
        # What is not there may be a folder of a store that has none, and may not be listed; HTTP says so of all.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
        silent = cause is None or isinstance(cause, FileNotFoundError | PermissionError) or hasattr(cause, "status")
        if not silent:
            raise DataRefusedError(f"location: {url!r} cannot be read: {told(cause)}") from error
    return _Remote(url, system, path)
