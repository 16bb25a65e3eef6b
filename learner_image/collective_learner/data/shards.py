"""What `collective data` writes and data loaders read back: one file of arrays, and a card that says what they are."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.data.places import DataRefusedError, Place, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = tuple[NDArray[Any], NDArray[Any]]

ARRAYS, CARD = "data.npz", "card.json"
VERSION = 1


def read_shard(place: Place) -> Arrays | None:
    """Read a shard's inputs and labels; None when the place has none.

    Raises
    ------
    DataRefusedError
        It is torn, or holds objects, which are not read.
    """
    if place.is_file():
        if not place.shown.endswith(".npz"):
            return None
        data, name = read(place), place.shown
    elif place.has(ARRAYS):
        data, name = read(place, ARRAYS), f"{place.shown}/{ARRAYS}"
    else:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataRefusedError(f"{name}: no arrays x and y can be read from it ({error})") from error
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or y.dtype.kind not in "iu":
        raise DataRefusedError(
            f"{name}: x of shape {x.shape} and y of shape {y.shape}, {y.dtype}, are no pair; a label for each example, "
            "a whole number, is needed"
        )
    return x, y


def pack(**arrays: NDArray[Any]) -> bytes:
    """Write arrays as the bytes of a .npz file, the same for the same arrays: numpy would note the time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
    return file.getvalue()


def card_bytes(card: Mapping[str, Any]) -> bytes:
    """Write a card: JSON with its version first."""
    return (json.dumps({"version": VERSION, **card}, indent=1) + "\n").encode()


def read_card(place: Place) -> dict[str, Any]:
    """Read a place's card; an empty one where there is none."""
    if place.is_file() or not place.has(CARD):
        return {}
    try:
        card = json.loads(read(place, CARD))
    except ValueError as error:
        raise DataRefusedError(f"{place.shown}/{CARD}: no JSON ({error})") from error
    return card if isinstance(card, dict) else {}
