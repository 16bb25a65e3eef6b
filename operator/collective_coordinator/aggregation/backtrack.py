"""After a rejection the next proposal goes less far from what all hold.

A gate that rejects leaves everyone where they were, so the next round starts from the same weights, and an average
that went too far will again: rounds would be rejected for ever. So the way from the weights held to the average is
halved after each rejection. A step that is still refused at an eighth was not too long, but led elsewhere: then the
whole way is tried again, with what the trainings' other shuffles make of it. After an acceptance it is the whole way.

The halving is that of a backtracking line search (Armijo, "Minimization of functions having Lipschitz continuous first
partial derivatives", 1966), with the voters as the function; each try is a round, with trainings of its own. Which try
a round is follows from the decisions before it, so a coordinator that starts again goes on alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from collective_coordinator.aggregation.reduce import FLOATING, decode, encode
from collective_coordinator.aggregation.stream import Fold

TRIES = 4
"""Lengths that are tried one after the other: 1, 1/2, 1/4, 1/8."""


def share_of_way(rejected: int) -> float:
    """Give how far a proposal goes, after so many rejected rounds in a row: above 0, at most 1."""
    return 0.5 ** (rejected % TRIES)


def shortened(fold: Fold, share: float, held: Callable[[int, int], bytes]) -> Fold:
    """Let what a fold makes go only a share of the way from the weights held.

    Integers and truth values, which have no half way, are the fold's.

    Parameters
    ----------
    fold
        What goes the whole way.
    share
        Above 0, at most 1.
    held
        Gives so many bytes of the held weights' data, from an offset on.
    """

    def step(pieces: Sequence[memoryview], dtype: str, begin: int) -> bytes:
        whole = fold(pieces, dtype, begin)
        if dtype not in FLOATING:
            return whole
        here = decode(held(begin, len(whole)), dtype)
        return encode(here + here.dtype.type(share) * (decode(whole, dtype) - here), dtype)

    return step
