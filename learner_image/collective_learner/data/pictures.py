"""Folders of images, one folder a class, as X-rays are published.

Class numbers come from a table and never from what is there: a site that lacks a class would number the others anew.
Pillow is imported when an image is read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from collective_learner.data.places import DataRefusedError, Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

ENDINGS = frozenset({".bmp", ".jpeg", ".jpg", ".png"})
_NOT_IMAGES = frozenset({"mask", "masks"})  # the outlines that some collections have beside each image

_logger = logging.getLogger(__name__)


def image_files(place: Place) -> list[PurePosixPath]:
    """Name the image files in a folder and below, masks left out."""
    paths = map(PurePosixPath, place.files())
    return [path for path in paths if path.suffix.lower() in ENDINGS and not _NOT_IMAGES & {*_lower(path.parent)}]


def read_pictures(place: Place, classes: Mapping[str, int], *, size: int) -> tuple[Bytes, Bytes]:
    """Read all images that lie in a class's folder, at whatever depth, as grey ones of one size.

    Parameters
    ----------
    classes
        Names of folders, in lower case, and the numbers of their classes.
    size
        Rows and columns that each is scaled to.

    Returns
    -------
    tuple
        Images of shape (n, size, size, 1), and their labels, in the order of their names.

    Raises
    ------
    DataRefusedError
        There are none, or a file is no image.
    """
    found = [(path, label) for path in image_files(place) if (label := _label(path, classes)) is not None]
    if not found:
        folders = ", ".join(dict.fromkeys(classes))
        raise DataRefusedError(
            f"location: {place.shown!r} has no images; folders named {folders} with "
            f"{', '.join(sorted(ENDINGS))} files are expected"
        )
    if left_out := len(image_files(place)) - len(found):
        _logger.info("%s: %d images in folders of other names are left out", place.shown, left_out)
    x = np.stack([_read(place, str(path), size) for path, _ in found])
    return x[..., None], np.array([label for _, label in found], dtype=np.uint8)


def _label(path: PurePosixPath, classes: Mapping[str, int]) -> int | None:
    return next((classes[part] for part in reversed(_lower(path.parent)) if part in classes), None)


def _lower(path: PurePosixPath) -> list[str]:
    return [part.lower() for part in path.parts]


def _read(place: Place, name: str, size: int) -> Bytes:
    try:
        from PIL import Image  # noqa: PLC0415 - for pictures only
    except ModuleNotFoundError as error:
        raise DataRefusedError(
            "images need Pillow, which is not installed: pip install 'collective-operator[images]'"
        ) from error
    try:
        with place.open(name) as file, Image.open(file) as image:
            image.draft("L", (size, size))  # a JPEG is decoded no larger than needed
            return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataRefusedError(f"{place.shown}/{name}: no image that can be read ({error})") from error
