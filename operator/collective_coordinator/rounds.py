"""The round loop: gather, attempt, decide, keep, announce.

The decision is on disk before anyone hears of it. So whatever moment this process is killed in, the next one finds the
last decision, brings every learner to its weights, and goes on with the round after it: no accepted round is lost, and
none is applied twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from collective_coordinator.attempt import Attempt, Proposal
from collective_coordinator.checkpoint import CheckpointStore, Snapshot
from collective_coordinator.errors import NobodyTrainsError, TaskFailedError, storage_failure
from collective_coordinator.growth import room_for
from collective_coordinator.history import History
from collective_coordinator.member import Member
from collective_coordinator.metrics import Metrics
from collective_coordinator.privacy import Budgets
from collective_coordinator.pulse import Timing
from collective_coordinator.record import decided_snapshot, log_round, record_of
from collective_coordinator.roster import Roster
from collective_coordinator.spool import Spool, StoredWeights
from collective_coordinator.stop import Stop
from collective_coordinator.strategies.base import Decision, Strategy
from collective_coordinator.strategies.opening import Opening
from collective_coordinator.tracing import Span
from collective_learner.wire import interface_pb2 as pb

T = TypeVar("T")

LOG = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES = 64 << 30
"""The most that the first weights may have. Later ones may have twice the size of those before, and a little, or what
weights that grow may come to: one learner's nonsense must not fill the disk."""

_SLACK_BYTES = 1 << 20


class Rounds:
    """Drives the rounds of one task.

    Parameters
    ----------
    strategy, strategy_name
        How, and what people call it.
    roster
        With whom.
    store, history
        What is kept, and what people read.
    metrics
        Told of everything.
    snapshot
        The last decision before a restart; None at the beginning.
    decided
        Called after every decision, once it is safe on disk.
    stop
        When to end.
    budgets
        Of the learners' privacy: when nobody may train any more, that is the end.
    timing
        How long a trainer may take.
    writer, readers, arithmetic
        Threads: one that writes, some that read, one that calculates.
    span
        What rounds are traced under.
    """

    def __init__(
        self,
        *,
        strategy: Strategy,
        strategy_name: str,
        roster: Roster,
        store: CheckpointStore,
        history: History,
        metrics: Metrics,
        snapshot: Snapshot | None,
        decided: Callable[[Snapshot], None],
        stop: Stop,
        budgets: Budgets,
        timing: Timing,
        writer: Executor,
        readers: Executor,
        arithmetic: Executor,
        span: Span,
    ) -> None:
        self.snapshot = snapshot
        self._strategy = strategy
        self._strategy_name = strategy_name
        self._roster = roster
        self._store = store
        self._history = history
        self._metrics = metrics
        self._decided = decided
        self._stop = stop
        self._budgets = budgets
        self._timing = timing
        self._writer = writer
        self._readers = readers
        self._arithmetic = arithmetic
        self._span = span
        self._keeping: asyncio.Future[None] | None = None
        self._room: int | None = None
        """The most bytes that weights may have which grow; 0 when they do not, None until that has been looked at."""

    def current(self) -> StoredWeights | None:
        """Tell the weights that every learner must hold."""
        return self.snapshot.weights if self.snapshot else None

    async def run(self) -> tuple[str, str]:
        """Decide all rounds that are left.

        Returns
        -------
        tuple of str
            Why they are over: a reason for machines and a message for people.

        Raises
        ------
        TaskFailedError
            It cannot be done.
        """
        try:
            while (ended := self._stop.reached(self.snapshot) if self.snapshot else None) is None:
                try:
                    if self.snapshot is not None and self._room is None:
                        self._room = await self._suited(self.snapshot.weights)
                    await self._play(0 if self.snapshot is None else self.snapshot.round + 1)
                except NobodyTrainsError as error:
                    ended = self._nobody_trains(str(error))
                    break
            await self._kept()
        finally:
            # Whatever ends the rounds, the last decision's files are written.
            if self._keeping is not None:
                await asyncio.wait({self._keeping})
                self._keeping.exception()
        await self._roster.settle()
        return ended

    def _nobody_trains(self, why: str) -> tuple[str, str]:
        """End as complete with what was learnt; a task in which nobody could train once has failed."""
        number = self.snapshot.round if self.snapshot else 0
        if not number:
            raise TaskFailedError("PrivacyBudgetSpent", f"No learner's privacy budget lasts for a training: {why}")
        return "PrivacyBudgetSpent", f"After round {number} no learner may train any more: {why}"

    async def _suited(self, weights: StoredWeights) -> int:
        read = partial(room_for, weights.path, averages=not self._strategy.alone, strategy=self._strategy_name)
        return min(await asyncio.get_running_loop().run_in_executor(self._readers, read), MAX_WEIGHTS_BYTES)

    async def _play(self, number: int) -> None:
        with self._span.child("round", round=number, strategy=self._strategy_name) as span:
            await self._decide(number, span)

    async def _decide(self, number: int, span: Span) -> None:
        """Try a round until it is decided."""
        strategy: Strategy = self._strategy if number else Opening()
        left_out: dict[str, str] = {}
        while True:
            members = await self._roster.gather(left_out)
            async with self._spool(str(number)) as spool, self._state_spool(strategy, number) as state_spool:
                asked_as = secrets.token_bytes(8)
                attempt = Attempt(
                    strategy=strategy,
                    name=asked_as,
                    source=self._source(strategy, number, asked_as),
                    spool=spool,
                    state_spool=state_spool,
                    limit=self._limit(),
                    current=self.current(),
                    rejected=self.snapshot.round - self.snapshot.held.round if self.snapshot else 0,
                    state=self.snapshot.state if self.snapshot else None,
                    budgets=self._budgets,
                    patience_s=self._timing.round_s,
                    enough=self._roster.quorum,
                    writer=self._writer,
                    readers=self._readers,
                    arithmetic=self._arithmetic,
                    span=span,
                )
                proposal = await attempt.run(round_number=number, members=members)
                for name, why in attempt.faults.items():
                    LOG.warning("round %d: %s is left out: %s", number, name, why)
                left_out.update(attempt.faults)
                if proposal is not None and self._roster.is_quorum(len(proposal.ballots)):
                    held = self.snapshot.held_scores if self.snapshot else {}
                    decision = strategy.decide(trainers=proposal.trainers, ballots=proposal.ballots, held=held)
                    # Who is left out of the training may still have tested what the others made.
                    absent = {**self._roster.absent(proposal.ballots, left_out), **attempt.faults}
                    await self._commit(
                        number,
                        proposal,
                        decision,
                        left_out=absent,
                        spool=spool,
                        state_spool=state_spool,
                        span=span,
                    )
                    return
            self._metrics.round("retried")

    def _source(self, strategy: Strategy, number: int, name: bytes) -> Callable[[Member], AsyncGenerator[bytes, None]]:
        if not number:
            return lambda member: member.peer.current()
        request = pb.RequestProposeWeights(round=number, proximal_mu=strategy.training.proximal_mu, proposal=name)
        # A strategy leaves trainers out after their time; those who wait for them meanwhile must not be out of theirs.
        timeout_s = self._timing.round_s * (1 if strategy.alone else 2)
        return lambda member: member.peer.propose(request, timeout_s=timeout_s)

    async def _commit(
        self,
        number: int,
        proposal: Proposal,
        decision: Decision,
        *,
        left_out: Mapping[str, str],
        spool: Spool,
        state_spool: Spool | None,
        span: Span,
    ) -> None:
        """Keep the decision, then announce it."""
        await self._kept()
        started = time.perf_counter()
        record = record_of(
            self._strategy_name,
            number,
            proposal,
            decision,
            left_out,
            privacy=self._budgets.record(member.name for member in self._roster.members),
        )
        snapshot = decided_snapshot(
            self.snapshot,
            number,
            proposal,
            decision,
            record=record if number else None,
            privacy=self._budgets.documents(),
            min_delta=self._stop.min_delta,
        )
        try:
            self.snapshot = snapshot = await self._write(
                lambda: self._store.save(
                    snapshot,
                    spool=spool if decision.accepted else None,
                    state_spool=state_spool if decision.accepted else None,
                )
            )
        except OSError as error:
            raise storage_failure(f"the decision of round {number} cannot be kept", error) from error
        self._budgets.recorded()
        kept = time.perf_counter()
        self._metrics.checkpoint(kept - started)
        self._count(number, proposal, decision)
        for name in left_out:
            self._metrics.left_out(name)
        self._roster.decided()
        self._decided(snapshot)
        span.note(accepted=decision.accepted, trainers=len(proposal.trainers), testers=len(proposal.ballots))
        if decision.accepted:
            await self._announce(proposal, snapshot.weights, span)
            record["seconds"]["accept"] = round(time.perf_counter() - kept, 3)
            self._metrics.phase("accept", time.perf_counter() - kept)
        self._keeping = asyncio.ensure_future(self._publish(snapshot, record, accepted=decision.accepted))
        log_round(record, snapshot, self._stop.rounds)

    async def _announce(self, proposal: Proposal, weights: StoredWeights, span: Span) -> None:
        """Have everyone who is ready take the weights, also who came meanwhile; the others' keepers see to them."""

        async def adopt(member: Member) -> None:
            with span.child("accept", learner=member.name):
                await member.adopt(weights, tested=member.name in proposal.ballots)

        await asyncio.gather(*(adopt(member) for member in self._roster.members if member.ready))

    async def _publish(self, snapshot: Snapshot, record: dict[str, Any], *, accepted: bool) -> None:
        """Write what is derived from the decision, beside the next round's training."""

        def write() -> None:
            if snapshot.round:
                self._history.append(record)
            if accepted:
                self._history.publish(snapshot.weights, best=snapshot.best.weights)
            self._store.prune(newest=snapshot.round)

        try:
            await self._write(write)
        except OSError as error:
            raise storage_failure(f"round {snapshot.round} stands, but its files cannot be written", error) from error

    async def _kept(self) -> None:
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            await keeping

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    @contextlib.asynccontextmanager
    async def _state_spool(self, strategy: Strategy, number: int) -> AsyncIterator[Spool | None]:
        if not strategy.keeps_state:
            yield None
            return
        async with self._spool(f"{number}-state") as spool:
            yield spool

    @contextlib.asynccontextmanager
    async def _spool(self, name: str) -> AsyncIterator[Spool]:
        try:
            spool = await self._write(lambda: self._store.spool(name))
        except OSError as error:
            raise storage_failure("there is no room for a proposal", error) from error
        try:
            yield spool
        finally:
            # After the writes that are still under way; and not awaited, since this may be a cancellation.
            self._writer.submit(spool.discard)

    def _limit(self) -> int:
        weights = self.current()
        if weights is None:
            return MAX_WEIGHTS_BYTES
        return max(2 * weights.size, self._room or 0) + _SLACK_BYTES

    def _count(self, number: int, proposal: Proposal, decision: Decision) -> None:
        if number:
            self._metrics.round("accepted" if decision.accepted else "rejected")
        self._metrics.phase("propose", proposal.propose_s)
        self._metrics.phase("test", proposal.test_s)
        for vote in decision.votes.values():
            self._metrics.vote(approves=vote)
        for name, ballot in proposal.ballots.items():
            self._metrics.score(name, test=ballot.test_score, vote=ballot.vote_score)
