"""When a task's Secrets are looked at though nothing asks for it: a Secret cannot be watched by whom may not list them.

How often is a question of how many there are: together these looks are at most one request in four seconds, however
many tasks run, and at least one a minute where they are few. A restarted operator begins anywhere in between, for
otherwise it would begin with all of them at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from collective_operator.cluster.protocol import TaskKey

_LEAST_S = 60.0
_SECONDS_A_SECRET = 4.0
_LOOKS_IN_A_LIFE = 12
"""So that even certificates that live for minutes are renewed in time."""


@dataclass(slots=True)
class _Kept:
    secrets: int
    next_at: float


class Vigil:
    """Remembers when it looked, as long as this process lives.

    Parameters
    ----------
    clock
        Seconds that never go back.
    life
        How long a certificate is valid.
    """

    def __init__(self, *, clock: Callable[[], float], life: timedelta) -> None:
        self._clock = clock
        self._most = life.total_seconds() / _LOOKS_IN_A_LIFE
        self._kept: dict[TaskKey, _Kept] = {}

    def due(self, key: TaskKey, *, secrets: int) -> bool:
        """Tell whether it is time; a task that is not known yet is noted.

        Parameters
        ----------
        secrets
            How many the task has.
        """
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(secrets, 0.0)
            kept.next_at = self._clock() + self._interval() * random.random()  # noqa: S311 - no secret
        kept.secrets = secrets
        return self._clock() >= kept.next_at

    def looked(self, key: TaskKey) -> None:
        """Note that all Secrets of a task were looked at."""
        if (kept := self._kept.get(key)) is not None:
            kept.next_at = self._clock() + self._interval()

    def forget(self, key: TaskKey) -> None:
        """Drop a task that needs no keys any more."""
        self._kept.pop(key, None)

    def _interval(self) -> float:
        total = sum(kept.secrets for kept in self._kept.values())
        return min(max(_LEAST_S, _SECONDS_A_SECRET * total), self._most)
