"""One learner as a member of the task: found, set up, brought to the current weights, and kept so.

Each member has a keeper, one task that does nothing else; the round loop only says "lost" and never
reconnects by itself. So a learner that comes back while a round runs without it is made ready meanwhile, and the
decision that falls during that is seen: weights are compared again, without a pause, right before it counts as ready,
and whoever is ready when a decision falls takes its weights like all the others.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from concurrent.futures import Executor

import grpc

from collective_coordinator.errors import LearnerError, SetupRefusedError, TaskFailedError, storage_failure
from collective_coordinator.peer import Peer
from collective_coordinator.pulse import Timing
from collective_coordinator.spool import StoredWeights, parts_of
from collective_learner.wire import interface_pb2 as pb

LOG = logging.getLogger(__name__)

_NOT_BY_DIGEST = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


class State(enum.StrEnum):
    """What a member does, as the status shows it."""

    CONNECTING = "Connecting"
    SETTING_UP = "SettingUp"
    READY = "Ready"
    TRAINING = "Training"
    TESTING = "Testing"
    LOST = "Lost"


class Member:
    """A learner and its keeper.

    Parameters
    ----------
    name
        ``learner-<i>``.
    peer
        The calls to it.
    timing
        For the backoff between attempts.
    current
        Tells the weights that every learner must hold; None before round 0 is decided.
    request
        Builds its MLSetup from what it says it supports.
    resumed
        The task goes on after a restart of the coordinator: a learner with a model has been set up for it before.
    readers
        Threads that read weights from disk.
    changed
        Called after every change of state.
    """

    def __init__(
        self,
        *,
        name: str,
        peer: Peer,
        timing: Timing,
        current: Callable[[], StoredWeights | None],
        request: Callable[[pb.ResponseSupportedSystem], pb.RequestMLSetup],
        resumed: bool,
        readers: Executor,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.peer = peer
        self.state = State.CONNECTING
        self.message = ""
        self.ready = False
        self._timing = timing
        self._current = current
        self._request = request
        self._readers = readers
        self._changed = changed
        self._known = resumed
        """It has been set up for this task, as far as we know; whether it still is, its status tells."""
        self._may_hold = resumed
        """It may hold the current weights, or have tested them last: worth asking by their digest."""
        self._by_digest = True
        self._held: bytes | None = None
        self._lost = asyncio.Event()

    def show(self, state: State) -> None:
        """Show what it does in a round, while it is ready."""
        if self.ready and self.state is not state:
            self._set(state, self.message, ready=True)

    def lose(self, reason: str) -> None:
        """Take it out until its keeper has it back."""
        if self.ready:
            LOG.warning("%s is lost: %s", self.name, reason)
            self._set(State.LOST, reason)
            self._lost.set()

    def refuse(self, reason: str) -> None:
        """Show that it will never be ready."""
        self._set(State.LOST, reason)

    async def keep(self) -> None:
        """Make it ready again and again, for ever.

        Raises
        ------
        TaskFailedError
            It refuses the set-up, or the weights to give it cannot be read.
        """
        backoff = self._timing.backoff_first_s
        while True:
            try:
                await self._prepare()
            except SetupRefusedError as error:
                raise TaskFailedError("SetupRefused", f"{self.name}: {error}") from error
            except LearnerError as error:
                if str(error) != self.message:
                    # A learner that has not been there yet is only late.
                    level = logging.INFO if self.state is State.CONNECTING else logging.WARNING
                    LOG.log(level, "%s is not ready: %s", self.name, error)
                self._set(State.CONNECTING if self.state is State.CONNECTING else State.LOST, str(error))
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, self._timing.backoff_most_s)
                await self._renew()
                continue
            # No await between the last look at the current weights and this.
            backoff = self._timing.backoff_first_s
            LOG.info("%s is ready", self.name)
            self._set(State.READY, "", ready=True)
            await self._lost.wait()
            self._lost.clear()
            await self._renew()

    async def adopt(self, weights: StoredWeights, *, tested: bool) -> None:
        """Have it take the weights that have just been accepted; on failure its keeper takes over.

        Parameters
        ----------
        weights
            The current weights.
        tested
            It has tested these, and nothing since.
        """
        if weights.digest == self._held:
            return
        try:
            await self._take(weights, may_hold=tested)
        except LearnerError as error:
            self.lose(str(error))

    async def _renew(self) -> None:
        self._held = None
        self._by_digest = True
        await self.peer.reconnect()

    async def _prepare(self) -> None:
        await self.peer.version()
        if self.state is not State.SETTING_UP:
            self._set(State.SETTING_UP, self.message)
        if not (self._known and await self.peer.has_model()):
            self._may_hold = self._known = False
            await self.peer.setup(self._request(await self.peer.supported()))
            self._known = True
        try:
            while (weights := self._current()) is not None and weights.digest != self._held:
                await self._take(weights, may_hold=self._may_hold)
        except LearnerError as error:
            if error.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                self._known = False  # what it has set up does not fit, or is gone: from the beginning, then
            raise
        self._may_hold = True

    async def _take(self, weights: StoredWeights, *, may_hold: bool) -> None:
        self._held = None
        if not (may_hold and self._by_digest and await self._accepted(weights)):
            try:
                await self.peer.set(parts_of(weights, readers=self._readers))
            except OSError as error:
                if self._current() is weights:
                    raise storage_failure("the current weights cannot be read", error) from error
                return  # a later decision has deleted them meanwhile
        self._held = weights.digest

    async def _accepted(self, weights: StoredWeights) -> bool:
        try:
            await self.peer.accept(weights.digest)
        except LearnerError as error:
            if error.code not in _NOT_BY_DIGEST:
                raise
            self._by_digest = error.code is not grpc.StatusCode.UNIMPLEMENTED
            return False
        return True

    def _set(self, state: State, message: str, *, ready: bool = False) -> None:
        self.state = state
        self.message = message
        self.ready = ready
        self._changed()
