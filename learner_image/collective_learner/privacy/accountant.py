"""From a history of noisy steps to the epsilon that they have spent together.

One accountant counts for every framework, so that the same trainings cost the same. The arithmetic is in
`loss_distribution`, apart, since it needs scipy, and whoever trains without privacy does not load it. It is the
project's own: Opacus brings accountants, but needs PyTorch, and dp-accounting's is the one that the tests judge this
one by.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MARGIN = 1e-3
"""Relative, on top of an upper bound: for what the digits of a gradient that is clipped in 32 bits can make of it."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Some steps of DP-SGD that were all alike.

    Parameters
    ----------
    noise_multiplier
        Standard deviation of the noise in units of the clipping norm.
    sample_rate
        The probability with which each example is in a batch, independently of all others.
    steps
        How many.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (0 < self.noise_multiplier < math.inf and 0 < self.sample_rate <= 1 and self.steps >= 0):
            raise ValueError(f"a charge of noise above 0, a rate above 0 to 1 and at least 0 steps is needed: {self}")


def merged(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """Put alike charges together, in the order of their first ones: the sum does not depend on the order."""
    steps: dict[tuple[float, float], int] = {}
    for each in charges:
        alike = each.noise_multiplier, each.sample_rate
        steps[alike] = steps.get(alike, 0) + each.steps
    return tuple(
        Charge(noise_multiplier=noise, sample_rate=rate, steps=count) for (noise, rate), count in steps.items() if count
    )


def epsilon_of(charges: Sequence[Charge], *, delta: float) -> float:
    """Tell what charges have spent together: an upper bound.

    Parameters
    ----------
    charges
        All that touched the data, in any order.
    delta
        The probability with which the bound may fail, above 0 and below 1.

    Returns
    -------
    float
        Epsilon for adding or removing one example; 0 when nothing was spent.
    """
    return _epsilon_of(merged(charges), delta)


@functools.lru_cache(maxsize=8)
def _epsilon_of(charges: tuple[Charge, ...], delta: float) -> float:
    from collective_learner.privacy.loss_distribution import epsilon_bound  # noqa: PLC0415 - brings scipy

    return (1 + _MARGIN) * epsilon_bound(charges, delta=delta) if charges else 0.0


def epsilon_after(charges: Sequence[Charge], planned: Charge, *, delta: float) -> float:
    """Tell what will have been spent after a planned training; never less than before it."""
    before = epsilon_of(charges, delta=delta)
    if not planned.steps:
        return before
    return max(before, epsilon_of([*charges, planned], delta=delta))
