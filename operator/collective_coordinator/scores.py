"""Scores, and other numbers that learners tell: averaged, brought back to the digits they had, and fit for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable


def mean(values: Iterable[float]) -> float | None:
    """Average; None of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None


def finite(value: float | None) -> float | None:
    """Give a number that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


def short(value: float) -> float:
    """Undo the digits that a 32-bit float gains on its way to 64 bits."""
    return float(f"{value:.7g}")
