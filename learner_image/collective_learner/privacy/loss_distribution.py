"""An upper bound on what noisy steps spend, by the distribution of their privacy loss.

A step draws each example with some probability, sums their clipped gradients and adds Gaussian noise. What an observer
can hold for or against one example is the privacy loss of what came out; losses of steps add up; and epsilon follows
from the distribution of their sum. Here that distribution is put on a grid and summed up by fast Fourier transforms.
Everything that is cut off or rounded on the way makes the result larger, never smaller:

- What is between two points of the grid is moved to these two, in such shares that its probabilities under both
  hypotheses (the example was there, it was not) stay: that dominates what was there before, and hardly differs from it.
- Losses beyond the grid count as infinite, losses below it as its lowest.
- What sums could go past the transform's window, and what rounding could hide, is bounded and added to delta. The
  transform is of a tilted distribution, whose middle is where epsilon is, so that rounding hides next to nothing there.

Sources: Koskela, Jälkö and Honkela, AISTATS 2020 (transforms); Doroshenko et al., Connect the Dots, PoPETs 2022 (the
shares); Zhu, Dong and Wang, AISTATS 2022 (adding and removing an example, each by itself, and the larger of the two).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

if TYPE_CHECKING:
    from collective_learner.privacy.charge import Charge

Floats: TypeAlias = NDArray[np.float64]

_FINE = 0.02
"""Distance of two points, in deviations of a step's loss: what it adds to the sum's variance is a ten-thousandth."""

_MOST = 1 << 20
"""Points of a grid; where they do not suffice it becomes coarser, and the bound looser."""

_ROUGH = 1 << 12
"""Points of the grid by which the final one is chosen."""

_CUT = 1e-5
"""Share of delta that is given up for each thing that is cut off."""

_LEAST_NOISE, _MOST_NOISE, _LEAST_RATE, _LEAST_DELTA = 1e-6, 1e6, 1e-12, 1e-60
"""For numbers beyond these a grid has no digits; they are taken for what spends more."""

_ROUNDING = 8 * float(np.finfo(np.float64).eps)
_LARGE = 30.0
"""A loss beyond which its exponential less one is its exponential."""

_TILTS = np.geomspace(1e-3, 1e5, 48)


def epsilon_bound(history: Sequence[Charge], *, delta: float) -> float:
    """Tell what steps spend together, for adding or removing one example.

    Parameters
    ----------
    history
        At least one step.
    delta
        Above 0 and below 1.

    Returns
    -------
    float
        Never below the true epsilon, and as a rule less than a thousandth above it.
    """
    simple = _concentrated(history, delta)
    if min(each.noise_multiplier for each in history) < _LEAST_NOISE or delta < _LEAST_DELTA:
        return simple
    history = [
        replace(
            each,
            noise_multiplier=min(each.noise_multiplier, _MOST_NOISE),
            sample_rate=max(each.sample_rate, _LEAST_RATE),
        )
        for each in history
    ]
    with np.errstate(all="ignore"):
        found = [_one_way(history, delta, removed=removed) for removed in (True, False)]
    return simple if any(map(math.isnan, found)) else min(simple, max(found))


def _concentrated(history: Sequence[Charge], delta: float) -> float:
    """Bound without a look at sampling, which only helps: loose, and there for any numbers (Bun and Steinke 2016)."""
    rho = sum(each.steps / each.noise_multiplier / each.noise_multiplier / 2 for each in history)
    return rho + 2 * math.sqrt(rho * -math.log(delta))


@dataclass(frozen=True)
class _Loss:
    """The loss of some steps, each a multiple of a width with a probability, or infinite."""

    count: int
    width: float
    first: int
    chances: Floats
    beyond: float
    """The probability that is left, that of an infinite loss."""

    @functools.cached_property
    def values(self) -> Floats:
        return self.width * (self.first + np.arange(len(self.chances), dtype=np.float64))

    def moment(self, tilt: float) -> float:
        """Tell the logarithm of the mean of exp(tilt * sum)."""
        tilted = tilt * self.values
        highest = float(tilted.max(where=self.chances > 0, initial=-math.inf))
        return self.count * (highest + math.log(float(self.chances @ np.exp(tilted - highest))))


def _one_way(history: Sequence[Charge], delta: float, *, removed: bool) -> float:
    """Bound epsilon in one direction; NaN where the numbers do not allow it."""
    steps = sum(each.steps for each in history)
    rough = [_loss(each, _CUT * delta / steps, removed=removed) for each in history]
    _, tilt = _end(rough, delta, 1)
    # The window is for the tilted distribution too: what is past its end comes back at its beginning.
    ends = [(-1, _CUT * delta, 0.0), (1, _CUT * delta, 0.0), (1, _CUT**2, tilt)]
    bounds = [_end(rough, chance, sign, of=of) for sign, chance, of in ends]
    variance = sum(each.count * _variance(each) for each in rough)
    reach = max(*(bounds[at][0] - bounds[0][0] for at in (1, 2)), *(each.width * len(each.chances) for each in rough))
    width = max(_FINE * math.sqrt(variance / steps), 1.1 * reach / _MOST)
    if not (math.isfinite(reach) and width > 0):
        return math.nan

    losses = [_loss(each, _CUT * delta / steps, removed=removed, width=width) for each in history]
    low, *highs = (_bound(losses, chance, by, of=of) for (_, chance, of), (_, by) in zip(ends, bounds, strict=True))
    first = math.floor(low / width)
    size = math.ceil(max(highs) / width) - first + 1
    if not size <= 2 * _MOST:
        return math.nan
    size = int(fft.next_fast_len(size, real=True))
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    for each in losses:
        tilted = each.chances * np.exp(tilt * each.values - each.moment(tilt) / each.count)
        around = np.bincount((each.first + np.arange(len(tilted))) % size, tilted, size)
        spectrum *= fft.rfft(around) ** each.count
    tilted = np.roll(fft.irfft(spectrum, size), -first % size)
    hidden = _ROUNDING * math.log2(size) * (1 + steps) * math.sqrt(size * float(np.square(tilted).sum()))
    values = width * (first + np.arange(size, dtype=np.float64))
    back = np.exp(sum(each.moment(tilt) for each in losses) - tilt * values)
    beyond = -math.expm1(sum(each.count * math.log1p(-each.beyond) for each in losses))
    some = values > 0
    return _smallest(
        values[some], (np.maximum(tilted, 0.0) * back)[some], (hidden * back)[some], delta - beyond - _CUT * delta
    )


def _loss(step: Charge, cut: float, *, removed: bool, width: float = 0.0) -> _Loss:
    """Put the loss of a step on a grid, a rough one where no width is told; all but `cut` is on it."""
    reach = -float(special.ndtri(cut)) * step.noise_multiplier
    # Of an example that is removed the outcome is drawn with it in the data, of one that is added without it.
    outcomes = (-reach, 1 + reach) if removed else (reach, -reach)
    lowest, highest = (_value(each, step) * (1 if removed else -1) for each in outcomes)
    width = width or max(highest - lowest, 1e-9 * abs(highest)) / _ROUGH
    first = math.floor(lowest / width)
    values = width * np.arange(first, math.ceil(highest / width) + 1, dtype=np.float64)
    points = _outcomes(values if removed else -values[::-1], step)
    absent, present = (_between((points - mean) / step.noise_multiplier) for mean in (0, 1))
    if not removed:
        absent, present = absent[::-1], present[::-1]
    drawn = (1 - step.sample_rate) * absent + step.sample_rate * present if removed else absent
    # The loss of what is between two points as a whole, from the odds of both hypotheses: so it keeps its digits.
    whole = np.log1p(step.sample_rate * (present / absent - 1))[1:-1]
    above = np.clip(np.nan_to_num(whole if removed else -whole, nan=np.inf) - values[:-1], 0.0, width)
    upwards = drawn[1:-1] * (np.expm1(-above) / math.expm1(-width))
    chances = np.zeros(len(values))
    chances[0] = drawn[0]
    chances[1:] += upwards
    chances[:-1] += drawn[1:-1] - upwards
    return _Loss(step.steps, width, first, chances, float(drawn[-1]))


def _value(outcome: float, step: Charge) -> float:
    """Tell how much likelier an outcome is with the example than without it, as a logarithm."""
    exponent = (2 * outcome - 1) / step.noise_multiplier / step.noise_multiplier / 2
    if step.sample_rate == 1:
        return exponent
    if exponent < _LARGE:
        return math.log1p(step.sample_rate * math.expm1(exponent))
    return exponent + math.log(step.sample_rate) + math.log1p((1 / step.sample_rate - 1) * math.exp(-exponent))


def _outcomes(values: Floats, step: Charge) -> Floats:
    """Find what outcomes have these losses, with the example removed; minus infinity for losses that are too small."""
    small = np.log1p(np.maximum(np.expm1(np.minimum(values, _LARGE)) / step.sample_rate, -1.0))
    large = values - math.log(step.sample_rate) + np.log1p((step.sample_rate - 1) * np.exp(-np.maximum(values, _LARGE)))
    found: Floats = step.noise_multiplier**2 * np.where(values < _LARGE, small, large) + 0.5
    return found


def _between(points: Floats) -> Floats:
    """Give a standard normal variable's probabilities below the first point, between neighbours, beyond the last."""
    left, right = np.append(-np.inf, points), np.append(points, np.inf)
    from_above = special.ndtr(-left) - special.ndtr(-right)
    found: Floats = np.where(left > 0, from_above, special.ndtr(right) - special.ndtr(left))
    return found


def _variance(loss: _Loss) -> float:
    mean = float(loss.chances @ loss.values)
    return float(loss.chances @ np.square(loss.values - mean))


def _bound(losses: Sequence[_Loss], chance: float, tilt: float, *, of: float = 0.0) -> float:
    """Bound the sum of losses by a tilt, from above where it is positive, but for some chance (Chernoff).

    Parameters
    ----------
    of
        The tilt of the distribution itself.
    """
    return (sum(each.moment(of + tilt) - each.moment(of) for each in losses) - math.log(chance)) / tilt


def _end(losses: Sequence[_Loss], chance: float, sign: int, *, of: float = 0.0) -> tuple[float, float]:
    """Find the tightest such bound, from above or from below, and the tilt that gives it."""
    scale = sign / max(float(np.abs(each.values[[0, -1]]).max()) for each in losses)
    bound, tilt = min((sign * _bound(losses, chance, tilt, of=of), tilt) for tilt in scale * _TILTS)
    return sign * bound, float(tilt)


def _smallest(values: Floats, chances: Floats, hidden: Floats, delta: float) -> float:
    """Find the smallest epsilon of at least 0 whose delta is small enough; NaN if there is none.

    Parameters
    ----------
    values, chances
        All losses above 0.
    hidden
        What rounding can hide of all probabilities from each loss on.
    """
    from_here = np.cumsum(chances[::-1])[::-1]
    other = np.cumsum((chances * np.exp(-values))[::-1])[::-1]  # the same, under the other hypothesis
    after = np.append(from_here[1:], 0.0) - np.nan_to_num(np.exp(values) * np.append(other[1:], 0.0), nan=0.0)
    enough = after + hidden <= delta
    if not enough.any():
        return math.nan
    at = int(enough.argmax())
    left = from_here[at] - delta + (hidden[at - 1] if at else 0.0)
    if at == 0 and left <= 0:
        return 0.0
    return max(0.0, min(float(values[at]), math.log(left / other[at]))) if other[at] else float(values[at])
