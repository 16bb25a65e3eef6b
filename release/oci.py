"""What is in an image, read from its archive: its digest, and what says which software it holds.

Every builder can write an OCI layout as a tar file, and it is read here without running the image or its builder. Only
the few files that name packages are kept; a layer above may replace or remove those of the layers below.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from release.errors import ReleaseError

_KEPT = re.compile(
    r".*/site-packages/[^/]+\.dist-info/METADATA"  # Python's packages
    r"|var/lib/dpkg/status|(usr/lib|etc)/os-release"  # Debian's, and which Debian it is
    r"|usr/local/include/python3\.\d+/patchlevel\.h"  # the interpreter, which is no package
)
_REMOVED, _ALL = ".wh.", ".wh..wh..opq"


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image.

    Parameters
    ----------
    digest
        Of its manifest: what a registry calls it, as long as it is pushed as it is.
    files
        By path without a leading slash, those that say which software there is.
    """

    digest: str
    files: Mapping[str, bytes]


def read(archive: Path) -> Image:
    """Read an archive that holds one image.

    Raises
    ------
    ReleaseError
        It is no OCI archive.
    """
    with tarfile.open(archive) as outer:

        def blob(descriptor: Mapping[str, Any]) -> Any:
            algorithm, _, digest = str(descriptor["digest"]).partition(":")
            return outer.extractfile(f"blobs/{algorithm}/{digest}")

        try:
            index = outer.extractfile("index.json")
        except KeyError:
            raise ReleaseError(f"{archive.name}: no OCI archive; docker writes one from version 25 on") from None
        (named, *_) = json.load(index)["manifests"]  # type: ignore[arg-type]
        manifest = json.load(blob(named))
        files: dict[str, bytes] = {}
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer), mode="r|*") as inner:
                _apply(inner, files)
    return Image(digest=str(named["digest"]), files=files)


def _apply(layer: tarfile.TarFile, files: dict[str, bytes]) -> None:
    """Lay one layer over those before; what it removes is of them, never its own."""
    own: dict[str, bytes] = {}
    for member in layer:
        path = PurePosixPath(member.name)
        name = str(path).lstrip("/")
        if path.name.startswith(_REMOVED):
            gone = path.parent if path.name == _ALL else path.parent / path.name.removeprefix(_REMOVED)
            for lower in [lower for lower in files if PurePosixPath(lower).is_relative_to(gone)]:
                del files[lower]
        elif member.isfile() and _KEPT.fullmatch(name):
            content = layer.extractfile(member)
            own[name] = b"" if content is None else content.read()
    files.update(own)
