"""Who can take part in the next round, and how long to wait for enough of them.

Who the members are may change, but only when `gather` begins to look: no attempt is under way then.

The clock of `preRunningDeadlineSeconds` starts when a round cannot go on, and only a decision stops it. So a learner
that comes back, spoils the round again and goes, cannot keep the task waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Container, Mapping, Sequence

from collective_coordinator.config import Policy
from collective_coordinator.errors import NobodyTrainsError, TaskFailedError
from collective_coordinator.member import Member
from collective_coordinator.pulse import Timing

LOG = logging.getLogger(__name__)

_MOST_BACKOFF_S = 10.0


class Roster:
    """The members, in the order of the configuration.

    Parameters
    ----------
    policy, timing
        The quorum and how long to wait for it.
    waiting
        Told what is waited for; told None when it goes on.
    spent
        Tells who may test and not train, and why.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        timing: Timing,
        waiting: Callable[[str | None], None],
        spent: Callable[[], Mapping[str, str]],
    ) -> None:
        self.members: Sequence[Member] = ()
        self.renew: Callable[[], None] = _stay
        """Called whenever the members may change."""
        self._newcomers: set[str] = set()
        """Who has joined and was not ready yet."""
        self._policy = policy
        self._timing = timing
        self._waiting = waiting
        self._spent = spent
        self._moved = asyncio.Event()
        self._short_since: float | None = None
        self._readmissions = 0
        self._complete_by: float | None = None
        self._begun = False

    def moved(self) -> None:
        """Note that a member's state has changed."""
        self._moved.set()

    @property
    def quorum(self) -> int:
        """So many learners are enough. Who joins a task that runs counts once it has been ready."""
        return max(1, min(self._policy.min_learners, len(self.members) - len(self._newcomers)))

    def is_quorum(self, count: int) -> bool:
        """Tell whether so many are enough."""
        return count >= self.quorum

    def enroll(self, members: Sequence[Member], *, policy: Policy, joined: Collection[str]) -> None:
        """Take other members, and their quorum.

        Parameters
        ----------
        members
            All of them, in the order of the configuration.
        policy
            With the quorum.
        joined
            Who is new among them. Before the first round there is nothing to join: all are waited for.
        """
        self.members = members
        self._policy = policy
        if self._begun:
            self._newcomers.update(joined)
        self._newcomers &= {member.name for member in members}

    def decided(self) -> None:
        """Note that a round has been decided: whoever was missing, the task goes on."""
        self._short_since = None
        self._readmissions = 0

    async def gather(self, left_out: dict[str, str]) -> list[Member]:
        """Wait until enough members are ready.

        Parameters
        ----------
        left_out
            Who has spoilt this round before, and how. They stay out while there are enough others; else this is
            emptied, after a pause, and they may try again.

        Raises
        ------
        TaskFailedError
            There were not enough for too long.
        NobodyTrainsError
            None of the members may train any more, whoever is ready.
        """
        clock = asyncio.get_running_loop().time
        while True:
            self._moved.clear()
            self.renew()
            ready = [member for member in self.members if member.ready]
            self._newcomers.difference_update(member.name for member in ready)
            able = [member for member in ready if member.name not in left_out]
            spent = self._spent()
            if spent and all(member.name in spent for member in self.members):
                raise NobodyTrainsError("; ".join(f"{member.name}: {spent[member.name]}" for member in self.members))
            if self.is_quorum(len(able)) and any(member.name not in spent for member in able):
                pause = self._for_the_others(len(able), clock())
                if pause <= 0:
                    self._begun = True
                    self._waiting(None)
                    return able
            else:
                self._short_since = clock() if self._short_since is None else self._short_since
                pause = self._short_since + self._policy.pre_running_deadline_s - clock()
                if pause <= 0:
                    waited = f"after {self._policy.pre_running_deadline_s:g} s"
                    raise TaskFailedError("BelowQuorum", f"{waited}, {self._missing(able, left_out)}")
                self._waiting(self._missing(able, left_out))
                if self.is_quorum(len(ready)):
                    await self._readmit(left_out, pause)
                    continue
            try:
                async with asyncio.timeout(pause):
                    await self._moved.wait()
            except TimeoutError:
                continue

    def absent(self, present: Container[str], left_out: Mapping[str, str]) -> dict[str, str]:
        """Tell who did not take part in a round, and why."""
        return {
            member.name: left_out.get(member.name) or member.message or str(member.state)
            for member in self.members
            if member.name not in present
        }

    async def settle(self) -> None:
        """Give everyone who can be reached the time to take the last weights, within a bound."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.settle_s):
                while not all(member.ready for member in self.members):
                    self._moved.clear()
                    await self._moved.wait()

    def _for_the_others(self, able: int, now: float) -> float:
        """Seconds to wait for those beyond the quorum: some before the first round, none after."""
        if self._begun or able == len(self.members):
            return 0.0
        if self._complete_by is None:
            self._complete_by = now + self._timing.quorum_grace_s
        return self._complete_by - now

    async def _readmit(self, left_out: dict[str, str], most: float) -> None:
        await asyncio.sleep(min(self._timing.backoff_first_s * 2**self._readmissions, _MOST_BACKOFF_S, most))
        self._readmissions += 1
        LOG.info("not enough learners without %s: trying again with them", ", ".join(left_out))
        left_out.clear()

    def _missing(self, able: Sequence[Member], left_out: dict[str, str]) -> str:
        absent = self.absent({member.name for member in able}, left_out)
        why = ", ".join(f"{name} ({reason})" for name, reason in absent.items())
        if self.is_quorum(len(able)):
            return f"none of those who are there may train, their privacy budgets are spent; missing: {why}"
        return f"{len(able)} of the {self.quorum} learners needed are there; missing: {why}"


def _stay() -> None:
    """Change nobody."""
