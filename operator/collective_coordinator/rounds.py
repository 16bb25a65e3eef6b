"""The round loop: gather, attempt, decide, keep, announce.

The decision is on disk before anyone hears of it. So whatever moment this process is killed in, the next one finds the
last decision, brings every learner to its weights, and goes on with the round after it: no accepted round is lost, and
none is applied twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

from collective_coordinator.attempt import Attempt, Proposal
from collective_coordinator.board import finite, mean
from collective_coordinator.checkpoint import CheckpointStore, Snapshot, Standing
from collective_coordinator.errors import storage_failure
from collective_coordinator.history import History
from collective_coordinator.metrics import Metrics
from collective_coordinator.roster import Roster
from collective_coordinator.spool import Spool, StoredWeights
from collective_coordinator.strategies.base import Decision, Strategy
from collective_coordinator.strategies.opening import Opening

T = TypeVar("T")

LOG = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES = 64 << 30
"""The most that the first weights may have. Later ones may have twice the size of those before, and a little: one
learner's nonsense must not fill the disk."""

_SLACK_BYTES = 1 << 20


class Rounds:
    """Drives the rounds of one task.

    Parameters
    ----------
    rounds
        How many to decide.
    strategy
        How.
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
    writer, readers
        Threads: one that writes, some that read.
    """

    def __init__(
        self,
        *,
        rounds: int,
        strategy: Strategy,
        roster: Roster,
        store: CheckpointStore,
        history: History,
        metrics: Metrics,
        snapshot: Snapshot | None,
        decided: Callable[[Snapshot], None],
        writer: Executor,
        readers: Executor,
    ) -> None:
        self.snapshot = snapshot
        self._rounds = rounds
        self._strategy = strategy
        self._roster = roster
        self._store = store
        self._history = history
        self._metrics = metrics
        self._decided = decided
        self._writer = writer
        self._readers = readers
        self._keeping: asyncio.Future[None] | None = None

    def current(self) -> StoredWeights | None:
        """Tell the weights that every learner must hold."""
        return self.snapshot.weights if self.snapshot else None

    async def run(self) -> Snapshot:
        """Decide all rounds that are left.

        Raises
        ------
        TaskFailedError
            It cannot be done.
        """
        try:
            while self.snapshot is None or self.snapshot.round < self._rounds:
                await self._play(0 if self.snapshot is None else self.snapshot.round + 1)
            await self._kept()
        finally:
            # Whatever ends the rounds, the last decision's files are written.
            if self._keeping is not None:
                await asyncio.wait({self._keeping})
                self._keeping.exception()
        await self._roster.settle()
        return self.snapshot

    async def _play(self, number: int) -> None:
        """Try a round until it is decided."""
        strategy: Strategy = self._strategy if number else Opening()
        left_out: dict[str, str] = {}
        while True:
            members = await self._roster.gather(left_out)
            async with self._spool(number) as spool:
                attempt = Attempt(
                    strategy=strategy,
                    source=(lambda member: member.peer.propose()) if number else (lambda member: member.peer.current()),
                    spool=spool, limit=self._limit(), writer=self._writer, readers=self._readers,
                )
                proposal = await attempt.run(round_number=number, members=members)
                for name, why in attempt.faults.items():
                    LOG.warning("round %d: %s is left out: %s", number, name, why)
                left_out.update(attempt.faults)
                if proposal is not None and self._roster.is_quorum(len(proposal.ballots)):
                    decision = strategy.decide(trainers=proposal.trainers, ballots=proposal.ballots)
                    absent = self._roster.absent(proposal.ballots, left_out)
                    await self._commit(number, proposal, decision, left_out=absent, spool=spool)
                    return
            self._metrics.round("retried")

    async def _commit(
        self, number: int, proposal: Proposal, decision: Decision, *, left_out: Mapping[str, str], spool: Spool
    ) -> None:
        """Keep the decision, then announce it."""
        await self._kept()
        started = time.perf_counter()
        record = _record(number, proposal, decision, left_out)
        snapshot = _next(self.snapshot, number, proposal, decision, record if number else None)
        try:
            self.snapshot = snapshot = await self._write(
                lambda: self._store.save(snapshot, spool=spool if decision.accepted else None)
            )
        except OSError as error:
            raise storage_failure(f"the decision of round {number} cannot be kept", error) from error
        kept = time.perf_counter()
        self._metrics.checkpoint(kept - started)
        self._count(number, proposal, decision)
        self._roster.decided()
        self._decided(snapshot)
        if decision.accepted:
            await self._announce(proposal, snapshot.weights)
            record["seconds"]["accept"] = round(time.perf_counter() - kept, 3)
            self._metrics.phase("accept", time.perf_counter() - kept)
        self._keeping = asyncio.ensure_future(self._publish(snapshot, record, accepted=decision.accepted))
        _log(record, snapshot, self._rounds)

    async def _announce(self, proposal: Proposal, weights: StoredWeights) -> None:
        """Have everyone who is ready take the weights, also who came meanwhile; the others' keepers see to them."""
        await asyncio.gather(*(
            member.adopt(weights, tested=member.name in proposal.exact)
            for member in self._roster.members if member.ready
        ))

    async def _publish(self, snapshot: Snapshot, record: dict[str, Any], *, accepted: bool) -> None:
        """Write what is derived from the decision, beside the next round's training."""
        def write() -> None:
            if snapshot.round:
                self._history.append(record)
            if accepted:
                self._history.publish(snapshot.weights)
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
    async def _spool(self, number: int) -> AsyncIterator[Spool]:
        try:
            spool = await self._write(lambda: self._store.spool(str(number)))
        except OSError as error:
            raise storage_failure("there is no room for a proposal", error) from error
        try:
            yield spool
        finally:
            # After the writes that are still under way; and not awaited, since this may be a cancellation.
            self._writer.submit(spool.discard)

    def _limit(self) -> int:
        weights = self.current()
        return MAX_WEIGHTS_BYTES if weights is None else 2 * weights.size + _SLACK_BYTES

    def _count(self, number: int, proposal: Proposal, decision: Decision) -> None:
        if number:
            self._metrics.round("accepted" if decision.accepted else "rejected")
        self._metrics.phase("propose", proposal.propose_s)
        self._metrics.phase("test", proposal.test_s)
        for vote in decision.votes.values():
            self._metrics.vote(approves=vote)
        for name, ballot in proposal.ballots.items():
            self._metrics.score(name, test=ballot.test_score, vote=ballot.vote_score)
        if proposal.summary is not None and proposal.summary.HasField("dp_budget"):
            budget = proposal.summary.dp_budget
            self._metrics.privacy(
                proposal.trainers[0], target=budget.target_epsilon, consumed=budget.consumed_epsilon
            )


def _next(
    before: Snapshot | None, number: int, proposal: Proposal, decision: Decision, record: dict[str, Any] | None
) -> Snapshot:
    """Give the state after a decision."""
    ballots = proposal.ballots
    latest = Standing(
        round=number, proposer=proposal.trainers[0],
        test_score=mean(ballot.test_score for ballot in ballots.values()),
        vote_score=mean(ballot.vote_score for ballot in ballots.values()),
    )
    scores = dict(before.scores) if before else {}
    scores.update({name: ballot.test_score for name, ballot in ballots.items()})
    if decision.accepted or before is None:
        return Snapshot(
            round=number, accepted=(before.accepted + 1) if before else 0, weights=proposal.weights,
            held=latest, latest=latest, scores=scores, record=record,
        )
    return Snapshot(
        round=number, accepted=before.accepted, weights=before.weights,
        held=before.held, latest=latest, scores=scores, record=record,
    )


def _record(
    number: int, proposal: Proposal, decision: Decision, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Build the line of rounds.jsonl. Learners stand in the order of the configuration, whoever answered first."""
    ballots = proposal.ballots
    record: dict[str, Any] = {
        "round": number,
        "proposer": proposal.trainers[0],
        "accepted": decision.accepted,
        "votes": dict(decision.votes),
        "voteScores": {name: ballot.vote_score for name, ballot in ballots.items()},
        "testScores": {name: ballot.test_score for name, ballot in ballots.items()},
        "seconds": {
            "propose": round(proposal.propose_s, 3), "test": round(proposal.test_s, 3),
            "accept": None if decision.accepted else 0.0,
        },
    }
    if left_out:
        record["leftOut"] = dict(left_out)
    if proposal.summary is not None and proposal.summary.HasField("dp_budget"):
        budget = proposal.summary.dp_budget
        record["privacy"] = {
            "targetEpsilon": finite(budget.target_epsilon), "targetDelta": finite(budget.target_delta),
            "consumedEpsilon": finite(budget.consumed_epsilon), "consumedDelta": finite(budget.consumed_delta),
        }
    return record


def _log(record: dict[str, Any], snapshot: Snapshot, total: int) -> None:
    seconds = sum(value or 0.0 for value in record["seconds"].values())
    latest = snapshot.latest
    if not snapshot.round:
        LOG.info("round 0: all learners hold the weights of %s, test score %.4g, %.2f s",
                 latest.proposer, latest.test_score or 0.0, seconds)
        return
    votes = record["votes"]
    LOG.info(
        "round %d/%d: %s proposed, %s (%d of %d votes), test score %.4g, vote score %.4g, %.2f s",
        snapshot.round, total, latest.proposer, "accepted" if record["accepted"] else "rejected",
        sum(votes.values()), len(votes), latest.test_score or 0.0, latest.vote_score or 0.0, seconds,
    )
