"""Files of inputs for a model: a table, an array, a picture, each checked against what the model takes.

What is wrong is told with the file and the place in it. A picture's pixels are brought into the range that the model
was trained on where that is one of the two usual ones; any other preparation only the task's own data loader knows.
"""

from __future__ import annotations

import csv
import enum
import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from collective_learner.export.errors import NotThereError

if TYPE_CHECKING:
    from pathlib import Path

    from collective_learner.mli import Array

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_BYTE = 255


class Pixels(enum.StrEnum):
    """The range that a picture's pixels have as a model's inputs."""

    UNIT = "0..1"
    BYTES = "0..255"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model takes.

    Parameters
    ----------
    shape
        Of one row; None where any size is taken.
    dtype
        numpy's name of the type.
    pixels
        The range of a picture's pixels; None when it is neither of the usual ones.
    """

    shape: tuple[int | None, ...]
    dtype: str
    pixels: Pixels | None = None

    @property
    def flat(self) -> int | None:
        """How many numbers a row has; None when that is not fixed."""
        sizes = [size for size in self.shape if size is not None]
        return math.prod(sizes) if len(sizes) == len(self.shape) else None

    def __str__(self) -> str:
        return f"({', '.join(['rows', *('any' if size is None else str(size) for size in self.shape)])})"


def pixels_of(example: Array) -> Pixels | None:
    """Tell which of the usual ranges inputs are in; nothing finer, since it goes into files."""
    low, high = float(example.min()), float(example.max())
    if low < 0 or high > _BYTE:
        return None
    return Pixels.UNIT if high <= 1 and example.dtype.kind == "f" else Pixels.BYTES


def read_inputs(path: Path, inputs: Inputs, *, resize: bool = False) -> Array:
    """Read a file of inputs: .csv, .npz, .npy, or a picture.

    Parameters
    ----------
    inputs
        What the model takes.
    resize
        Whether a picture of another size is brought to that of the model.

    Returns
    -------
    array
        Of shape (rows, ...), in the model's type.

    Raises
    ------
    NotThereError
        The file cannot be read, or holds something else than what the model takes.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            rows = _table(path, inputs)
        elif kind in (".npz", ".npy"):
            rows = _array(path, inputs)
        elif kind in _PICTURES:
            rows = _picture(path, inputs, resize=resize)
        else:
            raise NotThereError(f"{path}: a file .csv, .npz, .npy or a picture ({', '.join(_PICTURES)}) is needed")
    except OSError as error:
        raise NotThereError(f"{path}: cannot be read: {error.strerror or error}") from error
    taken = rows.astype(inputs.dtype)
    if taken.dtype.kind in "iub" and not np.array_equal(taken, rows):
        raise NotThereError(f"{path}: holds numbers that are no {inputs.dtype}, which the model takes")
    return taken


def _table(path: Path, inputs: Inputs) -> Array:
    wanted = inputs.flat
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [(reader.line_num, cells) for reader in [csv.reader(file)] for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotThereError(f"{path}: is no CSV file in UTF-8: {error}") from error
    names: list[str] = []
    if lines and not any(map(_is_number, lines[0][1])):
        names = [name.strip() for name in lines.pop(0)[1]]
    if not lines:
        raise NotThereError(f"{path}: has no rows; at least one is needed")
    if wanted is None:
        raise NotThereError(f"{path}: the model takes {inputs}, not rows of a table; give it as .npz")
    rows = np.empty((len(lines), wanted), dtype=np.float64)
    for index, (number, cells) in enumerate(lines):
        if len(cells) != wanted:
            raise NotThereError(f"{path}: line {number} has {len(cells)} columns, the model takes {wanted}")
        for column, cell in enumerate(cells):
            if not _is_number(cell):
                called = f" ({names[column]})" if column < len(names) else ""
                raise NotThereError(f"{path}: line {number}, column {column + 1}{called}: {cell!r}, a number is needed")
            rows[index, column] = float(cell)
    return rows.reshape(-1, *(size or 0 for size in inputs.shape))


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _array(path: Path, inputs: Inputs) -> Array:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                name = "x" if "x" in found.files else found.files[0] if len(found.files) == 1 else None
                if name is None:
                    held = ", ".join(found.files) or "nothing"
                    raise NotThereError(f"{path}: holds {held}; an array called x, or a single one, is needed")
                found = found[name]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, NotThereError):
            raise
        raise NotThereError(f"{path}: is no file of numpy arrays without objects: {error}") from error
    rows: Array = found
    if rows.dtype.kind not in "fiub":
        raise NotThereError(f"{path}: x is of {rows.dtype}; numbers are needed")
    if not _fits(rows.shape[1:], inputs.shape) and _fits(rows.shape, inputs.shape):
        rows = rows[None]
    if not rows.ndim or not _fits(rows.shape[1:], inputs.shape):
        raise NotThereError(f"{path}: x of shape {rows.shape}; the model takes {inputs}")
    if not len(rows):
        raise NotThereError(f"{path}: x has no rows; at least one is needed")
    return rows


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or size == given for given, size in zip(shape, wanted, strict=True)
    )


def _picture(path: Path, inputs: Inputs, *, resize: bool) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only pictures need it
    except ModuleNotFoundError as missing:
        raise NotThereError(
            f"{path}: a picture needs pillow, which is not installed: pip install 'collective-operator[images]'"
        ) from missing
    height, width, colours, first = _canvas(path, inputs)
    if inputs.pixels is None:
        raise NotThereError(
            f"{path}: the model takes prepared inputs, not pixels from 0 to 1 or 255; what the task's data loader "
            f"makes of a picture, of shape {inputs}, can be given as .npz"
        )
    try:
        with Image.open(path) as opened:
            picture = opened.convert({1: "L", 3: "RGB", 4: "RGBA"}[colours])
    except UnidentifiedImageError as error:
        raise NotThereError(f"{path}: is no picture that can be read") from error
    if picture.size != (width, height):
        if not resize:
            size = f"{picture.size[0]} x {picture.size[1]}"
            raise NotThereError(f"{path}: {size} pixels, the model takes {width} x {height}; --resize brings it there")
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.float32).reshape(height, width, colours)
    if inputs.pixels is Pixels.UNIT:
        pixels = pixels / np.float32(_BYTE)
    if first:
        pixels = np.moveaxis(pixels, -1, 0)
    return pixels.reshape(1, *(size or 0 for size in inputs.shape))


def _canvas(path: Path, inputs: Inputs) -> tuple[int, int, int, bool]:
    """Find height, width and colours of a model's pictures, and whether colours come first."""
    match inputs.shape:
        case (int(height), int(width), 1 | 3 | 4 as colours):
            return height, width, colours, False
        case (1 | 3 | 4 as colours, int(height), int(width)):
            return height, width, colours, True
        case (int(height), int(width)):
            return height, width, 1, False
        case (int(flat),) if math.isqrt(flat) ** 2 == flat:
            return math.isqrt(flat), math.isqrt(flat), 1, False
    raise NotThereError(f"{path}: the model takes {inputs}, which is no picture of fixed size; give it as .npz")
