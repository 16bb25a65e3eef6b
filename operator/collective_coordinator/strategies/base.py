"""The seam between the round loop and the algorithms.

The loop does the IO: it asks learners to train, streams what comes of it through to whoever tests it, keeps it, and
announces the decision. A strategy says who trains, how several streams of weights become one while they arrive, and
what the ballots mean. So an algorithm joins without a change in the loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from collective_coordinator.errors import LearnerError
from collective_coordinator.spool import Spool, StoredWeights
from collective_learner.wire import interface_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What one learner said about a proposal: two finite scores and its vote."""

    vote: bool
    vote_score: float
    test_score: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a proposal.

    Parameters
    ----------
    accepted
        Whether every learner takes it.
    votes
        The votes that counted, by learner; empty where nobody votes.
    gain
        By how much the voters' mean vote score got better, where that was looked at; below 0 it got worse.
    """

    accepted: bool
    votes: Mapping[str, bool]
    gain: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the learners are told for a training, beside "train".

    Parameters
    ----------
    proximal_mu
        FedProx's pull towards the weights that the round began with; 0 is none.
    """

    proximal_mu: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Inbound:
    """What a strategy makes one proposal of.

    Parameters
    ----------
    streams
        Each trainer's serialised WeightsParts, while they arrive, in the order of `Strategy.trainers`.
    summaries
        Each trainer's TrainingSummary, there once its first part is; a learner that sent none has no entry.
    limit
        The most bytes that a proposal may have.
    patience_s
        Seconds after which a trainer that has not begun to send is left out, if enough others have.
    enough
        So many trainers must remain.
    leave_out
        Told of a trainer that is left out, and why.
    arithmetic
        One thread for numbers; the event loop is not for them.
    current
        The weights that all learners hold.
    rejected
        How many rounds in a row were rejected before this one: all hold what they held then.
    state, new_state
        What `keeps_state` strategies wrote beside the last accepted weights (None before the first), and where to write
        for these; None for other strategies.
    """

    streams: Mapping[str, AsyncIterator[bytes]]
    limit: int
    patience_s: float
    enough: int
    leave_out: Callable[[str, LearnerError], None]
    arithmetic: Executor
    current: StoredWeights | None
    rejected: int = 0
    state: StoredWeights | None = None
    new_state: Spool | None = None
    summaries: Mapping[str, pb.TrainingSummary] = field(default_factory=dict)


class Strategy(Protocol):
    """One algorithm."""

    training: Training
    """What learners are told when they train."""

    alone: bool
    """Whether one learner trains in a round, and what it proposes is passed on as it is."""

    keeps_state: bool
    """Whether it needs a file of its own beside the weights, from round to round."""

    def trainers(self, *, round_number: int, live: Sequence[str]) -> tuple[str, ...]:
        """Choose who trains in this round.

        Parameters
        ----------
        round_number
            From 1.
        live
            The learners that can take part, in the order of the configuration; at least one.

        Returns
        -------
        tuple of str
            At least one of `live`.
        """

    def merge(self, inbound: Inbound) -> AsyncGenerator[bytes, None]:
        """Make one stream of serialised WeightsParts of the trainers' streams, part by part, while they arrive."""

    def decide(self, *, trainers: Sequence[str], ballots: Mapping[str, Ballot], held: Mapping[str, float]) -> Decision:
        """Decide on a proposal.

        Parameters
        ----------
        trainers
            Who trained.
        ballots
            Of all who took part, the trainers among them.
        held
            By learner, its vote score for the weights that all hold, of those who judged these.
        """


async def pass_through(inbound: Inbound) -> AsyncGenerator[bytes, None]:
    """Take the one trainer's proposal as it is: opaque bytes."""
    (stream,) = inbound.streams.values()
    async for message in stream:
        yield message
