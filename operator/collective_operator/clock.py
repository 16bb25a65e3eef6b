"""The time, for deadlines: as the machine tells it, but for the moments in which somebody sets its clock.

Deadlines are kept as times in a task's status, where any later process can read them, so they cannot be counted on a
monotonic clock alone.  A clock that is set for an hour ahead, and be it for a second, would end every task that waits.
So a running operator goes by what the wall clock said when it began, and counts on from there on a clock that nobody
sets.  It follows small corrections, as a time daemon makes them; of others it tells, and goes by them when it is next
started, as do certificates, which other machines judge by their own clocks, at any time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from collective_operator.leadership import boottime

_FOLLOWED_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Clock:
    """Tells the time.

    Parameters
    ----------
    wall
        Seconds since 1970, as the machine tells them.
    steady
        Seconds on a clock that nobody sets; it goes on while the machine sleeps.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = boottime) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._told = False

    def now(self) -> datetime:
        """Return the time, with a time zone."""
        steady = self._steady()
        offset = self._wall() - steady
        is_small = abs(offset - self._offset) <= _FOLLOWED_SECONDS
        if is_small:
            self._offset = offset
        elif not self._told:
            _log.warning(
                "this machine's clock was set by %+.0f s; deadlines go on as if it had not been", offset - self._offset
            )
        self._told = not is_small
        return datetime.fromtimestamp(steady + self._offset, UTC)
