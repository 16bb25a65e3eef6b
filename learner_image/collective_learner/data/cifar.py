"""CIFAR-10 as it is published: batches for Python, which are pickles, or binary ones.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. An image is 3,072 bytes: all red, then green, then blue, by rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collective_learner.data.pickled import read_pickle
from collective_learner.data.places import DataRefusedError, Place, first_of, read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_FOLDERS = ("", "cifar-10-batches-bin/", "cifar-10-batches-py/")  # the second ones are in the archives
_IMAGE_BYTES = 3 * 32 * 32
EXPECTED = "data_batch_1 to data_batch_5 or data_batch_1.bin to data_batch_5.bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_cifar(place: Place) -> tuple[Bytes, Bytes] | None:
    """Read the batches that a folder holds: images of shape (n, 32, 32, 3), and their labels; None without any."""
    found = []
    for name in _NAMES:
        file = first_of(place, [f"{folder}{name}{end}" for folder in _FOLDERS for end in (".bin", "")])
        if file is not None:
            data, shown = read(place, file), f"{place.shown}/{file}"
            is_binary = file.removesuffix(".gz").endswith(".bin")
            found.append(_binary(data, shown) if is_binary else _python(data, shown))
    if not found:
        return None
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def write_binary(x: Bytes, y: Bytes) -> bytes:
    """Write images of shape (n, 32, 32, 3) and their labels as a binary batch."""
    return np.concatenate([y[:, None], x.transpose(0, 3, 1, 2).reshape(len(x), -1)], axis=1).tobytes()


def _binary(data: bytes, name: str) -> tuple[Bytes, Bytes]:
    if not data or len(data) % (_IMAGE_BYTES + 1):
        raise DataRefusedError(f"{name}: {len(data)} bytes are no whole number of records of {_IMAGE_BYTES + 1}")
    records = np.frombuffer(data, np.uint8).reshape(-1, _IMAGE_BYTES + 1)
    return _checked(records[:, 1:], records[:, 0], name)


def _python(data: bytes, name: str) -> tuple[Bytes, Bytes]:
    batch = read_pickle(data, name)
    if not isinstance(batch, dict) or not isinstance(batch.get("data"), np.ndarray):
        raise DataRefusedError(f"{name}: no batch of CIFAR-10, which has 'data' and 'labels'")
    x, y = batch["data"], np.asarray(batch.get("labels"), dtype=object).reshape(-1)
    if x.shape != (len(y), _IMAGE_BYTES) or not all(type(each) is int for each in y):
        raise DataRefusedError(f"{name}: data of shape {x.shape} and labels of shape {y.shape} are no CIFAR-10 batch")
    return _checked(x, np.clip(y.astype(np.int64), -1, 255), name)


def _checked(x: Bytes, y: NDArray[np.generic], name: str) -> tuple[Bytes, Bytes]:
    if y.min() < 0 or y.max() >= len(CLASSES):
        raise DataRefusedError(f"{name}: labels from {y.min()} to {y.max()}; those of CIFAR-10 are 0 to 9")
    return x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), y.astype(np.uint8)
