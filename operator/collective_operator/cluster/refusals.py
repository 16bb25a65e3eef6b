"""What the cluster would not create, and when it is asked for it again.

A full quota stays full for a while, and a thousand tasks that wait for one must not ask for all of their pods every few
seconds.  So a task asks again after as long as it has been waiting, and then for one child of all that were refused for
the same cause, each time for another; once one is made, for all the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LEAST_SECONDS = 2.0
"""A namespace that was made a moment ago has no service account yet."""
_MOST_SECONDS = 120.0
_SAME_TURN_SECONDS = 1.0


@dataclass(slots=True)
class Refusals:
    """Those of one task; times are seconds that never go back."""

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
        self._again_at = now + min(max(now - self._since, _LEAST_SECONDS), _MOST_SECONDS)

    def made(self, name: str) -> None:
        """Hear that a child was made."""
        if name in self._said:
            self._said.clear()

    def standing(self, *, generation: object, now: float) -> tuple[Mapping[str, str], float]:
        """Tell what need not be asked for now, with its refusal, and in how many seconds that is over.

        Parameters
        ----------
        generation
            The task's: what was refused to one that somebody has changed since is asked for anew.
        """
        if generation != self._generation:
            self._generation = generation
            self._said.clear()
        left = self._again_at - now if self._said else 0.0
        if left > 0:
            return dict(self._said), left
        if now - self._tried_at > _SAME_TURN_SECONDS:
            self._next(now)
        return {name: message for name, message in self._said.items() if name not in self._tried}, 0.0

    def _next(self, now: float) -> None:
        """Choose who is asked for; behind all others then, as nobody may ask: it is not needed, or lacks another."""
        chosen = {_cause(name, message): name for name, message in reversed(self._said.items())}
        self._tried, self._tried_at = frozenset(chosen.values()), now
        for name in [name for name in self._said if name in self._tried]:
            self._said[name] = self._said.pop(name)


def _cause(name: str, message: str) -> str:
    """Tell what a refusal has in common with those of other children: all but names and numbers."""
    return re.sub("[0-9]+", "", message.replace(name, ""))
