"""What the cluster would not create, and when it is asked for it again.

A full quota stays full for a while, and a thousand tasks that wait for one must not ask for all of their pods every few
seconds.  So a task asks again after as long as it has been waiting, within a bound that is wider where more tasks wait,
and then for one child of all that were refused for the same cause, each time for another; once one is made, for all
the others.

What makes room is seen, most often: a pod that went has given back what it held, and an object that went its name.
Then whoever waits for just that name asks soon, or else the one of that namespace that asked longest ago.  That a quota
is raised, or a webhook mended, nobody sees: the bound is what that costs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from collective_operator.cluster.protocol import TaskKey

_LEAST_SECONDS = 2.0
"""A namespace that was made a moment ago has no service account yet."""
_FEW_SECONDS, _MOST_SECONDS = 30.0, 120.0
"""Between two tries of a task that waits alone, and of one of many."""
_APART_SECONDS = 8.0
"""Between two tries of all that wait: each is some eight requests."""
_SAME_TURN_SECONDS = 1.0


class Waiting:
    """Who waits for something to be made, of all tasks."""

    def __init__(self) -> None:
        self._refusals: dict[TaskKey, Refusals] = {}

    def of(self, key: TaskKey) -> Refusals:
        """Begin to keep what a task is refused; what was kept of one of this name is forgotten."""
        self._refusals.pop(key, None)
        return Refusals(key, self)

    def joined(self, key: TaskKey, refusals: Refusals, *, now: float) -> float:
        """Hear that a task waits, and tell for how many seconds it is to at most until it asks again."""
        self._refusals[key] = refusals
        # One that has ended meanwhile, or stands still, asks for nothing.
        for other in [other for other, each in self._refusals.items() if now - each.asked_at > 2 * _MOST_SECONDS]:
            del self._refusals[other]
        return min(max(_APART_SECONDS * len(self._refusals), _FEW_SECONDS), _MOST_SECONDS)

    def left(self, key: TaskKey, refusals: Refusals) -> None:
        """Hear that a task waits no longer."""
        if self._refusals.get(key) is refusals:
            del self._refusals[key]

    def room_was_made(self, key: TaskKey, *, now: float) -> TaskKey | None:
        """Hear that something of a task went, and tell who is to be looked at for it: it asks soon; None when nobody.

        Parameters
        ----------
        key
            Whose that was: it may wait for the name.
        now
            Seconds that never go back.
        """
        waiting = self._refusals
        near = [key] if key in waiting else [other for other in waiting if other.namespace == key.namespace]
        patient = [other for other in near if waiting[other].is_patient(now)]
        chosen = min(patient, key=lambda other: waiting[other].asked_at, default=None)
        if chosen is not None:
            waiting[chosen].hurry(now)
        return chosen


@dataclass(slots=True)
class Refusals:
    """Those of one task; times are seconds that never go back."""

    key: TaskKey
    waiting: Waiting
    asked_at: float = float("-inf")
    _said: dict[str, str] = field(default_factory=dict)
    """By the child's name, whoever was asked for longest ago first."""
    _since: float = 0.0
    _again_at: float = 0.0
    _tried: frozenset[str] = frozenset()
    _tried_at: float = float("-inf")
    _generation: object = None

    def refused(self, name: str, message: str, *, now: float) -> None:
        """Hear that a child was not made, and why."""
        if not self._said:
            self._since = now
        self._said.pop(name, None)
        self._said[name] = message
        self.asked_at = now
        bound = self.waiting.joined(self.key, self, now=now)
        self._again_at = now + min(max(now - self._since, _LEAST_SECONDS), bound)

    def made(self, name: str) -> None:
        """Hear that a child was made."""
        if name in self._said:
            self._forget()

    def is_patient(self, now: float) -> bool:
        """Tell whether it will be a while until the cluster is asked again."""
        return bool(self._said) and self._again_at > now + _LEAST_SECONDS

    def hurry(self, now: float) -> None:
        """Have the cluster asked again soon: at once it may not have counted yet what went."""
        self._again_at = min(self._again_at, now + _LEAST_SECONDS)

    def standing(self, *, generation: object, now: float) -> tuple[Mapping[str, str], float]:
        """Tell what need not be asked for now, with its refusal, and in how many seconds that is over.

        Parameters
        ----------
        generation
            The task's: what was refused to one that somebody has changed since is asked for anew.
        """
        if generation != self._generation:
            self._generation = generation
            self._forget()
        left = self._again_at - now if self._said else 0.0
        if left > 0:
            return dict(self._said), left
        if now - self._tried_at > _SAME_TURN_SECONDS:
            self._next(now)
        return {name: message for name, message in self._said.items() if name not in self._tried}, 0.0

    def _forget(self) -> None:
        self._said.clear()
        self.waiting.left(self.key, self)

    def _next(self, now: float) -> None:
        """Choose who is asked for; behind all others then, as nobody may ask: it is not needed, or lacks another."""
        chosen = {_cause(name, message): name for name, message in reversed(self._said.items())}
        self._tried, self._tried_at = frozenset(chosen.values()), now
        for name in [name for name in self._said if name in self._tried]:
            self._said[name] = self._said.pop(name)


def _cause(name: str, message: str) -> str:
    """Tell what a refusal has in common with those of other children: all but names and numbers."""
    return re.sub("[0-9]+", "", message.replace(name, ""))
