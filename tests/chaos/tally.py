"""What is counted over all tasks under chaos, and the one error: something has happened that must not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

POLL_S = 0.005
"""Between two looks at what tells nobody of its changes: files, and processes that are to come."""


class BrokenError(Exception):
    """Something happened that must not; the message says what."""


@dataclass
class Tally:
    """What has been done to the tasks and what they did."""

    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rounds: int = 0
    left_out: int = 0
    slowest_s: dict[str, float] = field(default_factory=lambda: {"coordinator": 0.0, "learner": 0.0})
    """From SIGTERM to the end."""
