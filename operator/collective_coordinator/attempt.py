"""One try at a round: train, stream the proposal to everyone who tests it, and collect the ballots.

A learner may hold other weights than it was given last: a SetWeights that a broken network kept back arrives after a
newer one, or somebody else calls the learner. So learners that can say from what they trained, and with what they
compared, are believed only if that is what everyone holds, and are given it again otherwise.

It ends in one of three ways: with a proposal and its ballots; with nobody's proposal but somebody's fault, so that the
round can be tried again without them; or with an error that ends the task. Whatever happens, no call and no thread of
it is left when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import grpc

from collective_coordinator.cancelling import cancelled
from collective_coordinator.errors import BudgetSpentError, LearnerError, TooFewTrainersError, storage_failure
from collective_coordinator.fanout import Relay, RelayAbortedError
from collective_coordinator.member import Member, State
from collective_coordinator.privacy import Budgets
from collective_coordinator.scores import short
from collective_coordinator.spool import Spool, StoredWeights
from collective_coordinator.strategies.base import Ballot, Inbound, Strategy
from collective_coordinator.tracing import Span, Untraced
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.parts import WireError, parse_part

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What came of an attempt that can be decided on.

    Parameters
    ----------
    trainers
        Whose training is in the proposal.
    weights
        The proposal, in its spool; not yet synced to disk.
    state
        What the strategy wrote beside it; None when it keeps nothing.
    ballots
        By learner, in the order of the configuration.
    summaries
        The trainers' TrainingSummaries, of those who sent a readable one.
    propose_s, test_s
        Seconds until the proposal was here, and from then until the last ballot.
    """

    trainers: tuple[str, ...]
    weights: StoredWeights
    state: StoredWeights | None
    ballots: Mapping[str, Ballot]
    summaries: Mapping[str, pb.TrainingSummary]
    propose_s: float
    test_s: float


@dataclass(kw_only=True)
class Attempt:
    """Runs one attempt.

    Parameters
    ----------
    strategy
        Chooses the trainers and merges their streams.
    name
        What a proposal is asked for under, so that its maker can be told to test it where it is.
    source
        Gives a trainer's stream of parts.
    spool, state_spool
        For the proposal and the strategy's own state; the caller opens and closes them.
    limit
        The most bytes a proposal may have.
    current, state
        The weights that all hold, and the strategy's state beside them.
    rejected
        How many rounds in a row were rejected since these weights were accepted.
    budgets
        Says who may not train, and is told what the trainers tell of their privacy.
    patience_s, enough
        How long to wait for a trainer to begin when so many others have.
    writer, readers, arithmetic
        Threads for the disk and for numbers.
    """

    strategy: Strategy
    name: bytes
    source: Callable[[Member], AsyncGenerator[bytes, None]]
    spool: Spool
    state_spool: Spool | None
    limit: int
    current: StoredWeights | None
    rejected: int = 0
    state: StoredWeights | None
    budgets: Budgets
    patience_s: float
    enough: int
    writer: Executor
    readers: Executor
    arithmetic: Executor
    summaries: dict[str, pb.TrainingSummary] = field(default_factory=dict)
    """What the trainers told beside their weights, as it comes."""
    trained: set[str] = field(default_factory=set)
    """Who has begun to send what it trained."""
    span: Span = field(default_factory=Untraced)
    """Of the round, for traces."""
    faults: dict[str, str] = field(default_factory=dict)
    """Who is to be left out of this round, and why."""

    async def run(self, *, round_number: int, members: Sequence[Member]) -> Proposal | None:
        """Try.

        Returns
        -------
        Proposal or None
            None when there is no proposal; `faults` tell why, or `budgets`.

        Raises
        ------
        TaskFailedError
            The disk did not take the proposal.
        """
        live = [member.name for member in members if member.name not in self.budgets.spent]
        trainers = self.strategy.trainers(round_number=round_number, live=live)
        by_name = {member.name: member for member in members}
        relay = Relay(self.spool, limit=self.limit, writer=self.writer, readers=self.readers)
        tests = {
            member.name: asyncio.create_task(
                self._tested(
                    member, relay, at_home=round_number > 0 and self.strategy.alone and member.name in trainers
                ),
                name=f"test {member.name}",
            )
            for member in members
        }
        started = time.perf_counter()
        try:
            async with contextlib.AsyncExitStack() as streams:
                sources = {
                    name: await streams.enter_async_context(contextlib.aclosing(self._trained(by_name[name])))
                    for name in trainers
                }
                merged = await streams.enter_async_context(
                    contextlib.aclosing(self.strategy.merge(self._inbound(sources, by_name)))
                )
                await relay.pump(merged)
            proposed = time.perf_counter()
            weights = await relay.stored()  # while the learners test
            state = await self._stored_state()
            answers = {name: await test for name, test in tests.items()}
        except LearnerError as error:
            self._leave_out(by_name[error.learner or trainers[0]], error)
            return None
        except TooFewTrainersError:
            return None
        except OSError as error:
            raise storage_failure("the proposal cannot be kept", error) from error
        finally:
            await cancelled(tests.values())
            for member in members:
                member.show(State.READY)
        ballots: dict[str, Ballot] = {}
        for name, answer in answers.items():
            if answer is None:
                continue
            try:
                ballot = read_ballot(answer)
                if answer.HasField("held"):
                    self._require_current(answer.held, "compared with")
            except LearnerError as error:
                self.faults[name] = str(error)
                if error.code is not None:
                    by_name[name].lose(str(error))
                continue
            ballots[name] = ballot
        return Proposal(
            trainers=tuple(name for name in trainers if name in self.trained),
            weights=weights,
            state=state,
            ballots=ballots,
            summaries=dict(self.summaries),
            propose_s=proposed - started,
            test_s=time.perf_counter() - proposed,
        )

    async def _stored_state(self) -> StoredWeights | None:
        if self.state_spool is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self.readers, self.state_spool.stored)

    def _inbound(self, streams: Mapping[str, AsyncGenerator[bytes, None]], members: Mapping[str, Member]) -> Inbound:
        return Inbound(
            streams=streams,
            summaries=self.summaries,
            limit=self.limit,
            patience_s=self.patience_s,
            enough=min(self.enough, len(streams)),
            arithmetic=self.arithmetic,
            current=self.current,
            rejected=self.rejected,
            state=self.state,
            new_state=self.state_spool,
            leave_out=lambda name, error: self._leave_out(members[name], error),
        )

    def _leave_out(self, member: Member, error: LearnerError) -> None:
        self.trained.discard(member.name)
        if isinstance(error, BudgetSpentError):
            LOG.warning("%s: %s", member.name, error)
            return
        self.faults[member.name] = str(error)
        if error.code is not None:
            member.lose(str(error))

    async def _trained(self, member: Member) -> AsyncGenerator[bytes, None]:
        member.show(State.TRAINING)
        try:
            with self.span.child("propose", learner=member.name):
                async with contextlib.aclosing(self.source(member)) as stream:
                    async for message in stream:
                        if member.name not in self.trained:
                            self.trained.add(member.name)
                            self._read_summary(member.name, message)
                            summary = self.summaries.get(member.name)
                            if summary is not None and summary.HasField("trained_from"):
                                self._require_current(summary.trained_from, "trained from")
                            if summary is not None:
                                self.budgets.note(member.name, summary)
                        yield message
        except LearnerError as error:
            error.learner = member.name
            raise

    def _require_current(self, digest: bytes, done: str) -> None:
        if self.current is not None and digest != self.current.digest:
            raise LearnerError(
                f"{done} other weights than the current ones: {digest.hex() or 'its first'}, "
                f"not {self.current.digest.hex()}",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )

    def _read_summary(self, name: str, message: bytes) -> None:
        try:
            raw = parse_part(message).summary
            if raw is not None:
                self.summaries[name] = pb.TrainingSummary.FromString(raw)
        except WireError:
            return  # whoever takes the part refuses it
        except ValueError:
            LOG.warning("%s sent a training summary that cannot be read, it is ignored", name)

    async def _tested(self, member: Member, relay: Relay, *, at_home: bool) -> pb.ProposedWeights | None:
        # Who was lost while the others trained may be on its way back, set up anew and without the current weights.
        if not await relay.begun() or not member.ready:
            return None
        member.show(State.TESTING)
        try:
            with self.span.child("test", learner=member.name):
                answer = None
                if at_home:
                    answer = await member.peer.test_proposal(self.name)
                if answer is None:
                    answer = await member.peer.test(relay.reader())
        except RelayAbortedError:
            return None
        except LearnerError as error:
            self.faults[member.name] = str(error)
            member.lose(str(error))
            return None
        member.show(State.READY)
        return answer


def read_ballot(answer: pb.ProposedWeights) -> Ballot:
    """Check what a learner answered.

    Raises
    ------
    LearnerError
        A score is not a finite number.
    """
    for name, score in (("vote", answer.vote_score), ("test", answer.test_score)):
        if not math.isfinite(score):
            raise LearnerError(f"answered a {name} score that is not a finite number: {score}")
    return Ballot(vote=answer.vote, vote_score=short(answer.vote_score), test_score=short(answer.test_score))
