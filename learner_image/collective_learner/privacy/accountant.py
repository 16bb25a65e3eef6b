"""From a history of noisy steps to the epsilon that they have spent together.

The arithmetic is Opacus': its numerical accountant ("prv", Gopi et al., NeurIPS 2021, arXiv:2106.02848), whose upper
bound is what counts, and Renyi differential privacy ("rdp", Mironov 2017) where the numerical one cannot go: with so
little noise that its grid would not fit, or with nothing left to chance in the sampling. Both bound the truth from
above for Poisson sampling, and for nothing else. Opacus' third accountant, by a central limit theorem, does not bound,
and is not offered.
"""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_logger = logging.getLogger(__name__)

_PRV_BELOW = 50.0
"""Epsilon, by the other accountant, above which the numerical one would need gigabytes, and nobody needs the digits."""

_FEW = [2, 4, 8, 16, 32, 63]
"""Orders of a first look; all of them take as long as the numerical accountant itself."""

_PRV_ERROR = 0.01
_MARGIN = 1e-3
"""Relative; two honest accountants differ by less, and of two numbers the larger is told."""


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
        Epsilon for adding or removing one example; 0 when nothing was spent, infinity when there is no bound.
    """
    return _epsilon_of(merged(charges), delta)


@functools.lru_cache(maxsize=8)
def _epsilon_of(charges: tuple[Charge, ...], delta: float) -> float:
    from opacus.accountants import PRVAccountant, RDPAccountant  # noqa: PLC0415 - only whoever accounts has it

    history = [(each.noise_multiplier, each.sample_rate, each.steps) for each in charges]
    if not history:
        return 0.0
    coarse, fine = RDPAccountant(), PRVAccountant()
    coarse.history, fine.history = list(history), list(history)
    with warnings.catch_warnings():
        # Of orders at the edge of its range, which makes the bound loose and leaves it a bound; and of exponentials.
        warnings.simplefilter("ignore")
        fits = float(coarse.get_epsilon(delta, alphas=_FEW)) < _PRV_BELOW
        if not fits or any(rate == 1 for _, rate, _ in history):
            return _told(float(coarse.get_epsilon(delta)))
        try:
            numerical = float(fine.get_epsilon(delta, eps_error=_PRV_ERROR))
        except (ValueError, RuntimeError, ArithmeticError, MemoryError, IndexError) as error:
            _logger.debug("the numerical accountant cannot tell (%s); the other one does", error)
            numerical = math.nan
        return _told(numerical if math.isfinite(numerical) and numerical > 0 else float(coarse.get_epsilon(delta)))


def epsilon_after(charges: Sequence[Charge], planned: Charge, *, delta: float) -> float:
    """Tell what will have been spent after a planned training; never less than before it."""
    before = epsilon_of(charges, delta=delta)
    if not planned.steps:
        return before
    return max(before, epsilon_of([*charges, planned], delta=delta))


def _told(epsilon: float) -> float:
    return epsilon * (1 + _MARGIN) if math.isfinite(epsilon) else math.inf
