"""The IDX format, in which MNIST and its relatives are published: a header of sizes, then the numbers.

Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from collective_learner.data.places import DataRefusedError, Place, first_of, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_UNSIGNED_BYTE = 0x08
# As published, and as they are named where somebody unpacked them with another tool.
PAIRS = (
    (("train-images-idx3-ubyte", "train-images.idx3-ubyte"), ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte")),
    (("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"), ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte")),
)
EXPECTED = "train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz)"


def read_idx(data: bytes, name: str) -> Bytes:
    """Read an IDX file of unsigned bytes.

    Raises
    ------
    DataRefusedError
        It is none, or is longer or shorter than its header says.
    """
    if len(data) < 4 or data[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or len(data) < 4 + 4 * data[3]:
        raise DataRefusedError(f"{name}: no IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    start = 4 + 4 * data[3]
    if len(data) - start != math.prod(shape):
        raise DataRefusedError(f"{name}: {len(data) - start} bytes of data, its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(array: Bytes) -> bytes:
    """Write an array of unsigned bytes as an IDX file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, _UNSIGNED_BYTE, array.ndim, *array.shape) + array.tobytes()


def read_mnist(place: Place) -> tuple[Bytes, Bytes] | None:
    """Read what a folder holds of MNIST's four files: images of shape (n, rows, columns), and their labels.

    Returns
    -------
    tuple or None
        None when no file of them is there; both halves, one after the other, when both are.

    Raises
    ------
    DataRefusedError
        Images without labels, or of another number.
    """
    found = []
    for images, labels in PAIRS:
        image_file, label_file = first_of(place, images), first_of(place, labels)
        if image_file is None and label_file is None:
            continue
        if image_file is None or label_file is None:
            missing = images[0] if image_file is None else labels[0]
            raise DataRefusedError(f"{place.shown}: {missing} (or .gz) is missing beside {image_file or label_file}")
        x, y = (read_idx(read(place, name), f"{place.shown}/{name}") for name in (image_file, label_file))
        if x.ndim != 3 or y.shape != x.shape[:1]:
            raise DataRefusedError(
                f"{place.shown}: {image_file} has the shape {x.shape} and {label_file} {y.shape}; (n, rows, columns) "
                "and (n,) are needed"
            )
        found.append((x, y))
    if not found:
        return None
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])
