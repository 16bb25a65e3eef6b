"""From a history of noisy steps to the epsilon that they have spent together.

One accountant counts for every framework, so that the same trainings cost the same. The arithmetic is in
`loss_distribution`, apart, since it needs scipy, and whoever trains without privacy does not load it. It is the
project's own: Opacus brings accountants, but needs PyTorch, and dp-accounting's is the one that the tests judge this
one by.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from collective_learner.privacy.charge import Charge

_MARGIN = 1e-3
"""Relative, on top of an upper bound: for what the digits of a gradient that is clipped in 32 bits can make of it."""


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
