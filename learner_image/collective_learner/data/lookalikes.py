"""`collective data make`: small data sets in the published ones' own files, for tests and first tries.

They look alike and are made up: a class is a random pattern, and an example is its pattern moved, weakened and noised.
A score on them says that everything works together, and nothing about the real data; their cards say so too.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.data import cifar, idx
from collective_learner.data.folders import written_at_once
from collective_learner.data.places import DataRefusedError
from collective_learner.data.shards import CARD, card_bytes
from collective_learner.learners.checks import whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

_TEST_SHARE = 6  # one in six of the examples is in the published sets' test files
_PIXELS = 128


@dataclass(frozen=True, kw_only=True)
class LookAlike:
    """A data set that can be made.

    Parameters
    ----------
    tasks
        The data loaders that read it.
    summary
        What it looks like.
    examples
        How many are made, unless told otherwise.
    write
        Writes so many examples, drawn from a generator, into a folder.
    """

    tasks: tuple[str, ...]
    summary: str
    examples: int
    write: Callable[[Path, int, np.random.Generator], None]


def make(name: str, folder: Path, *, examples: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Write a look-alike and its card into a new folder.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    DataRefusedError
        There is no such data set, the folder is taken, or Pillow is needed and not installed.
    """
    found = LOOK_ALIKES.get(name.lower().replace("_", "-"))
    if found is None:
        raise DataRefusedError(f"{name!r} is none of {', '.join(LOOK_ALIKES)}")
    count = whole_number("examples", found.examples if examples is None else examples, at_least=30)
    whole_number("seed", seed, at_least=0)
    card = {
        "name": name,
        "lookAlike": True,
        "note": f"Made up by `collective data make`, in the form of {found.summary}. Not the real data.",
        "dataLoaders": [*found.tasks],
        "examples": count,
        "seed": seed,
    }
    with written_at_once(folder) as aside:
        found.write(aside, count, np.random.default_rng([seed, count]))
        (aside / CARD).write_bytes(card_bytes(card))
    return card


def _images(count: int, rng: np.random.Generator, *, shape: tuple[int, int, int], classes: int) -> tuple[Bytes, Bytes]:
    """Draw images: every class is a pattern of a few soft blobs, moved by up to two pixels."""
    rows, columns, colours = shape
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    patterns = np.zeros((classes, *shape))
    for label in range(classes):
        for _ in range(4):
            centre = rng.uniform(0.2, 0.8, 2) * (rows, columns)
            width = rng.uniform(0.06, 0.16) * rows
            blob = np.exp(-((grid - centre) ** 2).sum(axis=-1) / (2 * width**2))
            patterns[label] += blob[..., None] * rng.uniform(0.3, 1, colours)
        patterns[label] /= patterns[label].max()
    y = rng.permutation(np.arange(count) % classes).astype(np.uint8)
    x = np.empty((count, *shape), np.uint8)
    for index, label in enumerate(y):
        moved = np.roll(patterns[label], rng.integers(-2, 3, 2), axis=(0, 1))
        noised = moved * rng.uniform(0.6, 1) + rng.normal(0, 0.12, shape)
        x[index] = (np.clip(noised, 0, 1) * 255).astype(np.uint8)
    return x, y


def _mnist(folder: Path, count: int, rng: np.random.Generator) -> None:
    x, y = _images(count, rng, shape=(28, 28, 1), classes=10)
    cut = count - count // _TEST_SHARE
    for (images, labels), part in zip(idx.PAIRS, (slice(cut), slice(cut, None)), strict=True):
        _gzip(folder / f"{images[0]}.gz", idx.write_idx(x[part, ..., 0]))
        _gzip(folder / f"{labels[0]}.gz", idx.write_idx(y[part]))


def _cifar(folder: Path, count: int, rng: np.random.Generator) -> None:
    x, y = _images(count, rng, shape=(32, 32, 3), classes=10)
    for number, part in enumerate(np.array_split(np.arange(count), 6), 1):
        name = f"data_batch_{number}.bin" if number < 6 else "test_batch.bin"
        (folder / name).write_bytes(cifar.write_binary(x[part], y[part]))


def _xrays(folders: tuple[str, ...]) -> Callable[[Path, int, np.random.Generator], None]:
    def write(folder: Path, count: int, rng: np.random.Generator) -> None:
        try:
            from PIL import Image  # noqa: PLC0415 - for pictures only
        except ModuleNotFoundError as error:
            raise DataRefusedError(
                "images need Pillow, which is not installed: pip install 'collective-operator[images]'"
            ) from error
        x, y = _images(count, rng, shape=(_PIXELS, _PIXELS, 1), classes=len(folders))
        for name in folders:
            (folder / name).mkdir(parents=True)
        for index, label in enumerate(y):
            file = io.BytesIO()
            Image.fromarray(x[index, ..., 0]).save(file, format="PNG")
            (folder / folders[label] / f"{index:05d}.png").write_bytes(file.getvalue())

    return write


def _payments(folder: Path, count: int, rng: np.random.Generator) -> None:
    y = rng.permutation((np.arange(count) < max(count // 20, 9)).astype(int))  # more fraud than there is in truth
    away = rng.normal(0, 1.2, 28)
    values = rng.normal(0, 1, (count, 28)) + y[:, None] * away
    times = np.sort(rng.uniform(0, 172_800, count))
    amounts = rng.lognormal(3 + y, 1.2)
    lines = [",".join(f'"{name}"' for name in ("Time", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"))]
    for time, row, amount, label in zip(times, values, amounts, y, strict=True):
        lines.append(",".join([f"{time:.0f}", *(f"{value:.6f}" for value in row), f"{amount:.2f}", f'"{label}"']))
    (folder / "creditcard.csv").write_text("\n".join(lines) + "\n")


def _gzip(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, mtime=0))


LOOK_ALIKES: Mapping[str, LookAlike] = {
    "mnist": LookAlike(
        tasks=("KERAS_MNIST", "KERAS_MNIST_WITH_DP"), summary="MNIST (IDX files)", examples=3000, write=_mnist
    ),
    "cifar10": LookAlike(tasks=("KERAS_CIFAR10",), summary="CIFAR-10 (binary batches)", examples=3000, write=_cifar),
    "xray": LookAlike(
        tasks=("PYTORCH_XRAY",),
        summary="chest X-rays with and without pneumonia (folders of images)",
        examples=500,
        write=_xrays(("NORMAL", "PNEUMONIA")),
    ),
    "covid-xray": LookAlike(
        tasks=("PYTORCH_COVID_XRAY",),
        summary="the COVID-19 radiography collection (folders of images)",
        examples=600,
        write=_xrays(("COVID/images", "Normal/images", "Viral Pneumonia/images")),
    ),
    "fraud": LookAlike(tasks=("FRAUD",), summary="credit card fraud (creditcard.csv)", examples=5000, write=_payments),
}
