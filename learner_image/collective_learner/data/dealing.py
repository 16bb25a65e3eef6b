"""Who gets which examples: a data set dealt out to several learners, so that shards are disjoint and nothing is left.

Pure arithmetic on labels and a seed; the same seed deals the same way on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.data.places import DataRefusedError
from collective_learner.learners.checks import number, whole_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.intp]

_LEAST = 3
"""Examples that a shard needs: one to train on, one to vote on, one to test on."""
_TRIES = 100


def deal(labels: NDArray[Any], *, count: int, skew: float | None, seed: int) -> list[Indices]:
    """Deal examples out.

    Parameters
    ----------
    labels
        Of each example.
    count
        How many shards.
    skew
        None: at random, and sizes differ by at most one. A number: each class is divided by shares that are drawn from
        a Dirichlet distribution with this concentration. 100 is nearly even; at 0.1 a shard has few classes.
    seed
        Decides everything else.

    Returns
    -------
    list
        For each shard the places of its examples, in rising order.

    Raises
    ------
    DataRefusedError
        There are too few examples for so many shards, or for so much skew.
    ValueError
        A parameter is out of its range; the message names it.

    Notes
    -----
    Source: Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification, 2019. A draw that leaves a shard with less than three examples is drawn again.
    """
    whole_number("learners", count, at_least=1)
    whole_number("seed", seed, at_least=0)
    if len(labels) < _LEAST * count:
        raise DataRefusedError(f"learners: {count}, {len(labels)} examples make at most {len(labels) // _LEAST} shards")
    if skew is None:
        order = np.random.default_rng([seed, 0]).permutation(len(labels))
        return [np.sort(part) for part in np.array_split(order, count)]
    number("skew", skew, above=0)
    for attempt in range(_TRIES):
        shards = _by_shares(labels, count=count, skew=skew, rng=np.random.default_rng([seed, 1, attempt]))
        if min(map(len, shards)) >= _LEAST:
            return shards
    raise DataRefusedError(
        f"skew: {skew:g} left a shard of {count} with less than {_LEAST} of {len(labels)} examples in each of {_TRIES} "
        "draws; a larger number, or fewer learners, is needed"
    )


def _by_shares(labels: NDArray[Any], *, count: int, skew: float, rng: np.random.Generator) -> list[Indices]:
    parts: list[list[Indices]] = [[] for _ in range(count)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(rng.dirichlet(np.full(count, skew)))[:-1] * len(members)).astype(int)
        for part, dealt in zip(parts, np.split(members, np.clip(cuts, 0, len(members))), strict=True):
            part.append(dealt)
    return [np.sort(np.concatenate(part)) for part in parts]
