"""How one data set becomes the private data of several learners, all in one place without talking to each other.

Every learner cuts the same shards from the same seed and keeps its own, so shards are disjoint and nothing is left
over. Only what stands in the task file decides: a learner that is started again has the same data as before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collective_learner.learners.checks import share, whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Labels = NDArray[np.int64]
    Indices = NDArray[np.intp]

_LOCATION = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)
_SPLITS = 3  # train, vote, test


class Examples(NamedTuple):
    """Inputs, one row an example, and the number of each one's class."""

    x: Floats
    y: Labels


@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    """One learner's private data: plain arrays, for whichever framework the model is in.

    Parameters
    ----------
    train, vote, test
        Disjoint, none of them empty. Shape of x: (examples, features).
    classes
        How many classes the task has, also when this learner has seen fewer of them.
    batch_size
        Examples in a batch, for models that train in batches.
    """

    train: Examples
    vote: Examples
    test: Examples
    classes: int
    batch_size: int


def load_shard(
    x: Floats,
    y: Labels,
    *,
    classes: int,
    location: str,
    train_ratio: float,
    vote_ratio: float,
    skew: float,
    batch_size: int,
    seed: int,
) -> ClassificationData:
    """Cut a learner's shard from a data set, and split it.

    Parameters
    ----------
    x, y
        The whole data set: shape (n, features), and n numbers of classes below `classes`.
    location
        ``"2/5"`` is shard 2 of 5, counted from 0.
    train_ratio, vote_ratio
        Shares of the shard to train on and to vote on; the rest is for testing.
    skew
        Share of the examples that are dealt out in order of their labels, so that a shard gets few classes; the others
        are dealt at random. 0: shards are alike; 1: a shard holds a run of labels. Shards keep their sizes.
    batch_size
        Passed on with the data.
    seed
        Decides shards and splits. Learners of one task need the same one.

    Raises
    ------
    ValueError
        A parameter is out of its range; the message names it.
    """
    index, count = parse_location(location, examples=len(y))
    share("train_ratio", train_ratio, open_ended=True)
    share("vote_ratio", vote_ratio, open_ended=True)
    if train_ratio + vote_ratio >= 1:
        raise ValueError(f"train_ratio, vote_ratio: {train_ratio} + {vote_ratio} leaves nothing to test on")
    share("skew", skew)
    whole_number("batch_size", batch_size, at_least=1)
    whole_number("seed", seed, at_least=0)
    mine = _shard(y, index=index, count=count, skew=skew, seed=seed)
    train = min(max(1, round(len(mine) * train_ratio)), len(mine) - 2)
    vote = min(max(1, round(len(mine) * vote_ratio)), len(mine) - train - 1)
    splits = np.split(mine, [train, train + vote])
    parts = [Examples(x[part], y[part]) for part in splits]
    return ClassificationData(train=parts[0], vote=parts[1], test=parts[2], classes=classes, batch_size=batch_size)


def parse_location(location: str, *, examples: int) -> tuple[int, int]:
    """Read ``"index/count"``.

    Parameters
    ----------
    examples
        Of the data set: there are at most so many shards that each has an example to train, vote and test on.
    """
    match = _LOCATION.fullmatch(location) if isinstance(location, str) else None
    if match is None:
        raise ValueError(f"location: {location!r}, 'index/count' is needed, such as '2/5' for shard 2 of 0 to 4")
    index, count = int(match[1]), int(match[2])
    if not 1 <= count <= examples // _SPLITS:
        raise ValueError(f"location: {location!r}, {examples} examples make 1 to {examples // _SPLITS} shards")
    if index >= count:
        raise ValueError(f"location: {location!r}, shards are counted from 0 to {count - 1}")
    return index, count


def _shard(y: Labels, *, index: int, count: int, skew: float, seed: int) -> Indices:
    """Choose the examples of a shard, in random order. Sizes of shards differ by at most one."""
    order = np.random.default_rng([seed, 0]).permutation(len(y))
    by_label = round(len(y) * skew)
    # Runs of the sorted ones, and of the others what completes a shard, so that all shards are equally large.
    sizes = [len(part) for part in np.array_split(order, count)]
    runs = [len(part) for part in np.array_split(order[:by_label], count)]
    at_random = np.split(order[by_label:], np.cumsum([size - run for size, run in zip(sizes, runs, strict=True)])[:-1])
    dealt = order[:by_label]
    by_run = np.split(dealt[np.argsort(y[dealt], kind="stable")], np.cumsum(runs)[:-1])
    return np.random.default_rng([seed, 1, index]).permutation(np.concatenate([by_run[index], at_random[index]]))
