"""The members and their keepers, as the configuration names them now: learners join and leave while rounds go on.

A learner that joins gets a keeper, which sets it up and gives it the current weights beside the rounds; nobody waits
for it before it has been ready once, so that raising a task's count never stops a task. One that leaves goes between
two attempts at a round, so that its going is nobody's fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace

from collective_coordinator.board import Board
from collective_coordinator.config import Config, LearnerSpec
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.member import Member
from collective_coordinator.roster import Roster

LOG = logging.getLogger(__name__)


class Crew:
    """Hires, keeps and lets go.

    Parameters
    ----------
    config
        Whom to begin with.
    roster, board
        Told who there is; the roster says when it may change.
    hire
        Makes a member; told whether the task has set the learner up before, as far as anyone knows.
    resumed
        The task goes on after a restart of the coordinator.
    changed
        Told of the configuration that is in force, whenever that changes; and of who has left, by name.
    """

    def __init__(
        self,
        config: Config,
        *,
        roster: Roster,
        board: Board,
        hire: Callable[[LearnerSpec, bool], Member],
        resumed: bool,
        changed: Callable[[Config, Sequence[str]], None],
    ) -> None:
        self._config = config
        self._wanted = config
        self._roster = roster
        self._board = board
        self._hire = hire
        self._changed = changed
        self._members = {learner.name: hire(learner, resumed) for learner in config.learners}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._newcomers: set[str] = set()
        """Whoever was not there from the beginning."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what ends the task; never has a result."""

    def begin(self) -> None:
        """Start the keepers of those who are there from the beginning."""
        self._roster.renew = self._renew
        self._enroll()
        for member in self._members.values():
            self._keep(member)

    def want(self, config: Config) -> None:
        """Take a new configuration, to be followed at the next safe moment; only learners and quorum may change."""
        followed = replace(
            self._config,
            learners=config.learners,
            policy=replace(self._config.policy, min_learners=config.policy.min_learners),
        )
        names = [field.name for field in fields(config)]
        ignored = [name for name in names if getattr(config, name) != getattr(followed, name)]
        if ignored:
            LOG.warning("the configuration has changed in %s: ignored while the task runs", ", ".join(ignored))
        self._wanted = followed
        self._roster.moved()

    async def close(self) -> None:
        """Let everyone go; a second time does nothing."""
        self._members, members = {}, self._members
        for member in members.values():
            self._release(member)
        while self._leaving:
            await asyncio.wait(self._leaving)
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()

    def _renew(self) -> None:
        """Follow the configuration; called while no round is under way."""
        if self._wanted == self._config:
            return
        before = {learner.name: learner for learner in self._config.learners}
        after = {learner.name: learner for learner in self._wanted.learners}
        gone = [name for name, learner in before.items() if after.get(name) != learner]
        new = [learner for name, learner in after.items() if before.get(name) != learner]
        for name in gone:
            self._release(self._members.pop(name))
        hired = {learner.name: self._hire(learner, False) for learner in new}
        kept = {**self._members, **hired}
        self._members = {name: kept[name] for name in after}
        self._newcomers |= hired.keys()
        self._config = self._wanted
        for verb, whom in (("leave", gone), ("join", list(hired))):
            if whom:
                LOG.info("%s %s", ", ".join(whom), verb)
        self._enroll(joined=hired)
        for member in hired.values():
            self._keep(member)
        self._changed(self._config, gone)

    def _enroll(self, joined: Collection[str] = ()) -> None:
        members = list(self._members.values())
        self._board.members = members
        self._roster.enroll(members, policy=self._config.policy, joined=joined)

    def _keep(self, member: Member) -> None:
        keeper = asyncio.create_task(member.keep(), name=f"keeper of {member.name}")
        keeper.add_done_callback(lambda done: self._kept(member, done))
        self._keepers[member.name] = keeper

    def _kept(self, member: Member, keeper: asyncio.Task[None]) -> None:
        """Pass on what ended a keeper, which is what ends the task."""
        if keeper.cancelled() or self.ended.done():
            return
        error = keeper.exception()
        if isinstance(error, TaskFailedError) and error.reason == "SetupRefused" and member.name in self._newcomers:
            # A run of days must not end because one more learner was given no data.
            LOG.error("%s cannot join: %s", member.name, error.message)
            member.refuse(error.message)
        elif error is not None:
            self.ended.set_exception(error)

    def _release(self, member: Member) -> None:
        leaving = asyncio.create_task(_released(member, self._keepers.pop(member.name, None)))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


async def _released(member: Member, keeper: asyncio.Task[None] | None) -> None:
    if keeper is not None:
        keeper.cancel()
        await asyncio.wait({keeper})
    await member.peer.close()
