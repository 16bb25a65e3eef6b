"""Which program speaks with a store, by its URL: fsspec's backends, each a package of its own.

A store whose backend is absent says which package brings it, so that nobody has to know fsspec to name a bucket.
"""

from __future__ import annotations

import re
from typing import Any

# Backends that fsspec itself has, and what they need; for others the first part of their module's name is the package.
_NEEDED = {
    "http": "aiohttp requests",
    "https": "aiohttp requests",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "hdfs": "pyarrow",
    "gdrive": "gdrive-fsspec",
}
_SHARED = re.compile(r"fsspec\b")


class StoreUnknownError(ValueError):
    """Nothing here speaks with such a store; the message begins with the URL and says what is missing."""


def store_of(url: str) -> tuple[Any, str]:
    """Find the backend of a URL.

    Returns
    -------
    tuple
        A file system of fsspec's, and the path in it.

    Raises
    ------
    StoreUnknownError
        There is no such scheme, or its backend is not installed.
    """
    try:
        import fsspec  # noqa: PLC0415 - for URLs only
        from fsspec.registry import known_implementations  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise StoreUnknownError(f"{url!r} needs fsspec, which is not installed: pip install fsspec") from error
    protocol = url.partition("://")[0].lower()
    known = known_implementations.get(protocol)
    if known is None and protocol not in fsspec.available_protocols():
        raise StoreUnknownError(f"{url!r}, nothing is known that reads {protocol}://")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        home = (known or {}).get("class", "").partition(".")[0]
        package = _NEEDED.get(protocol, protocol if not home or _SHARED.match(home) else home)
        raise StoreUnknownError(
            f"{url!r} needs {package.replace(' ', ' and ')}, which is not installed: pip install {package}"
        ) from error
    return system, path.rstrip("/")


def told(error: BaseException | None) -> str:
    """Name an error of a backend: by its kind, since many say nothing else."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
