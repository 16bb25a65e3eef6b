"""What an accountant of privacy counts: noisy steps that were all alike."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
