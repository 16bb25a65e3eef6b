"""Checks of parameters that come from a task file: one error each, naming the parameter, its value and what is allowed.

JSON has one kind of number, and true and false are whole numbers to Python; both are sorted out here.
"""

from __future__ import annotations

import math
from typing import TypeGuard


def whole_number(name: str, value: object, *, at_least: int) -> int:
    """Return a whole number that is large enough.

    Raises
    ------
    ValueError
        It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name}: {value!r}, a whole number of at least {at_least} is needed")
    return value


def number(name: str, value: object, *, above: float | None = None, at_least: float = -math.inf) -> float:
    """Return a finite number within its lower bound, whichever of the two is given.

    Raises
    ------
    ValueError
        It is something else.
    """
    if _is_number(value) and value >= at_least and (above is None or value > above):
        return value
    bound = f"of at least {at_least:g}" if above is None else f"above {above:g}"
    raise ValueError(f"{name}: {value!r}, a number {bound} is needed")


def share(name: str, value: object, *, open_ended: bool = False) -> float:
    """Return a number from 0 to 1; with `open_ended` neither 0 nor 1.

    Raises
    ------
    ValueError
        It is something else.
    """
    if _is_number(value) and (0 < value < 1 if open_ended else 0 <= value <= 1):
        return value
    allowed = "above 0 and below 1" if open_ended else "from 0 to 1"
    raise ValueError(f"{name}: {value!r}, a number {allowed} is needed")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
