"""Data that lies in files at a learner's location, split into its private train, vote and test sets.

Unlike the data sets that scikit-learn ships, which every learner cuts for itself, what lies at a location is one
learner's alone: `collective data split` has cut it, or it never was anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.data import cifar, idx, tables
from collective_learner.data.pictures import read_pictures
from collective_learner.data.places import DataRefusedError, Place, place_of
from collective_learner.data.shards import ARRAYS, read_shard
from collective_learner.learners.checks import share, whole_number
from collective_learner.tasks.data import ClassificationData, Examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = tuple[NDArray[Any], NDArray[Any]]

_LEAST = 3


@dataclass(frozen=True, kw_only=True)
class ImageData(ClassificationData):
    """One learner's private images: x of shape (examples, rows, columns, colours), unsigned bytes.

    Parameters
    ----------
    pin_memory
        Whether batches are to be laid out for a quick way to a GPU.
    """

    pin_memory: bool = False


def mnist_at(location: str) -> Arrays:
    """Read MNIST, or what is in its form, from IDX files or from a shard."""
    found = _found(location, lambda place: _with_colour(idx.read_mnist(place)), idx.EXPECTED)
    return _of_shape(location, found, (28, 28, 1))


def cifar10_at(location: str) -> Arrays:
    """Read CIFAR-10 from its batches, for Python or binary, or from a shard."""
    return _of_shape(location, _found(location, cifar.read_cifar, cifar.EXPECTED), (32, 32, 3))


def payments_at(location: str) -> Arrays:
    """Read a table of payments from CSV files or from a shard."""
    x, y = _found(location, tables.read_payments, tables.EXPECTED, one_file=True)
    if x.ndim != 2 or y.max(initial=0) > 1 or y.min(initial=0) < 0:
        raise DataRefusedError(
            f"location: {location!r}, x of shape {x.shape}; (n, columns) and labels 0 and 1 are needed"
        )
    return x.astype(np.float32, copy=False), y


def pictures_at(location: str, classes: Mapping[str, int], *, size: int) -> Arrays:
    """Read folders of images."""
    return read_pictures(place_of(location), classes, size=size)


def split_up(x: NDArray[Any], y: NDArray[Any], *, train_ratio: float, seed: int, test: Examples | None = None) -> Any:
    """Split examples at random.

    Parameters
    ----------
    train_ratio
        The share to train on. Of the others, one half is to vote on and one half to test on; all of them are to vote
        on where `test` is given.
    seed
        Of the order.

    Returns
    -------
    dict
        ``train``, ``vote`` and ``test``, none of them empty.

    Raises
    ------
    ValueError
        The share is out of its range, or there are too few examples.
    """
    share("train_ratio", train_ratio, open_ended=True)
    whole_number("seed", seed, at_least=0)
    if len(y) < _LEAST:
        raise DataRefusedError(f"location: {len(y)} examples; at least {_LEAST} are needed")
    order = np.random.default_rng([seed, 2]).permutation(len(y))
    train = min(max(1, round(len(y) * train_ratio)), len(y) - 2)
    vote = len(y) - train if test is not None else (len(y) - train + 1) // 2
    parts = [Examples(x[part], y[part].astype(np.int64)) for part in np.split(order, [train, train + vote])]
    return {"train": parts[0], "vote": parts[1], "test": parts[2] if test is None else test}


def _found(location: str, read: Callable[[Place], Arrays | None], expected: str, *, one_file: bool = False) -> Arrays:
    place = place_of(location)
    found = read_shard(place)
    if found is None and (one_file or not place.is_file()):
        found = read(place)
    if found is None:
        raise DataRefusedError(f"location: {location!r} has no data; expected there are {ARRAYS}, or {expected}")
    return found


def _with_colour(found: Arrays | None) -> Arrays | None:
    return None if found is None else (found[0][..., None], found[1])


def _of_shape(location: str, found: Arrays, shape: tuple[int, ...]) -> Arrays:
    x, y = found
    if x.shape[1:] != shape or x.dtype != np.uint8:
        raise DataRefusedError(
            f"location: {location!r} has images of shape {x.shape[1:]}, {x.dtype}; {shape}, uint8, is needed"
        )
    if len(y) and not 0 <= y.min() <= y.max() < 10:
        raise DataRefusedError(f"location: {location!r} has labels from {y.min()} to {y.max()}; 0 to 9 are needed")
    return x, y
