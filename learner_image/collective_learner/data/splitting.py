"""`collective data split`: one data set becomes the folders of several learners, with cards that say what is where.

Arrays are written as .npz, in which `index` tells each example's place in the source; images stay the files that they
are, one folder a class. What comes out is what the built-in data loaders read.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.data import cifar, idx, tables
from collective_learner.data.dealing import deal
from collective_learner.data.folders import written_at_once
from collective_learner.data.pictures import image_files
from collective_learner.data.places import DataRefusedError, Place, place_of
from collective_learner.data.shards import ARRAYS, CARD, card_bytes, pack, read_card, read_shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collective_learner.data.dealing import Indices

_CONTAINER_FOLDERS = frozenset({"images"})  # of collections that have CLASS/images/ beside CLASS/masks/


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that can be dealt out.

    Parameters
    ----------
    form
        How it is stored.
    labels
        Of each example, for dealing and for the card.
    write
        Writes the examples at these places into a folder.
    """

    form: str
    labels: NDArray[Any]
    write: Callable[[Path, Indices], None]


def split(source: str, folder: Path, *, learners: int, skew: float | None, seed: int) -> dict[str, Any]:
    """Deal a data set out to learners: `folder`/0, `folder`/1, and so on, each with a card, and one card for all.

    Parameters
    ----------
    source
        A folder, a file or a URL.
    folder
        Where to; must not exist, or be empty.
    learners, skew, seed
        See `dealing.deal`.

    Returns
    -------
    dict
        The card.

    Raises
    ------
    DataRefusedError
        The source is not understood, there are too few examples, or the folder is taken.
    """
    place = place_of(source)
    data = find_source(place)
    parts = deal(data.labels, count=learners, skew=skew, seed=seed)
    origin = read_card(place)
    common = {
        "name": origin.get("name", PurePosixPath(source.rstrip("/")).name),
        "lookAlike": bool(origin.get("lookAlike", False)),
        "source": source,
        "form": data.form,
    }
    told = {"learners": learners, "skew": skew, "seed": seed}
    shards = [{"folder": str(index), **_counts(data.labels[part])} for index, part in enumerate(parts)]
    card = {**common, **_counts(data.labels), "split": told, "shards": shards}
    with written_at_once(folder) as aside:
        for index, (part, shard) in enumerate(zip(parts, shards, strict=True)):
            own = aside / str(index)
            own.mkdir()
            data.write(own, part)
            (own / CARD).write_bytes(card_bytes({**common, **shard, "split": {**told, "index": index}}))
        (aside / CARD).write_bytes(card_bytes(card))
    return card


def find_source(place: Place) -> Source:
    """Find out what a place holds.

    Raises
    ------
    DataRefusedError
        Nothing that is known.
    """
    for form, found in (("npz", read_shard), ("idx", _mnist), ("cifar-10", _cifar), ("csv", _payments)):
        arrays = found(place)
        if arrays is not None:
            return _arrays(form, *arrays)
    if not place.is_file() and (files := image_files(place)):
        return _images(place, files)
    raise DataRefusedError(
        f"{place.shown}: no data set that is known; expected are {ARRAYS}, {idx.EXPECTED}, {cifar.EXPECTED}, "
        f"{tables.EXPECTED}, or a folder of images for each class"
    )


def _mnist(place: Place) -> tuple[NDArray[Any], NDArray[Any]] | None:
    found = None if place.is_file() else idx.read_mnist(place)
    return None if found is None else (found[0][..., None], found[1])


def _cifar(place: Place) -> tuple[NDArray[Any], NDArray[Any]] | None:
    return None if place.is_file() else cifar.read_cifar(place)


def _payments(place: Place) -> tuple[NDArray[Any], NDArray[Any]] | None:
    if place.is_file() and not place.shown.removesuffix(".gz").endswith(".csv"):
        return None
    return tables.read_payments(place)


def _arrays(form: str, x: NDArray[Any], y: NDArray[Any]) -> Source:
    def write(folder: Path, part: Indices) -> None:
        (folder / ARRAYS).write_bytes(pack(x=x[part], y=y[part], index=part))

    return Source(form=form, labels=y, write=write)


def _images(place: Place, files: list[PurePosixPath]) -> Source:
    classes = [_class_of(path) for path in files]
    names = [_flat(path) for path in files]
    twice = [name for name, times in Counter(zip(classes, names, strict=True)).items() if times > 1]
    if "" in classes or twice:
        example = files[classes.index("")] if "" in classes else "/".join(twice[0])
        raise DataRefusedError(f"{place.shown}: {example}, a folder of images for each class is needed")

    def write(folder: Path, part: Indices) -> None:
        for index in part:
            target = folder / classes[index] / names[index]
            target.parent.mkdir(exist_ok=True)
            with place.open(str(files[index])) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)

    return Source(form="images", labels=np.array(classes), write=write)


def _class_of(path: PurePosixPath) -> str:
    """Name the class of an image: the folder that it lies in."""
    parts = [part for part in path.parent.parts if part.lower() not in _CONTAINER_FOLDERS]
    return parts[-1] if parts else ""


def _flat(path: PurePosixPath) -> str:
    """Name an image in its class's folder, in which those of train/CLASS and test/CLASS come together."""
    return "-".join(part for part in path.parts if part != _class_of(path) and part.lower() not in _CONTAINER_FOLDERS)


def _counts(labels: NDArray[Any]) -> dict[str, Any]:
    values, counts = np.unique(labels, return_counts=True)
    return {"examples": len(labels), "labels": dict(zip(map(str, values), map(int, counts), strict=True))}
