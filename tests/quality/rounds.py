"""Rounds in one process: the coordinator's strategies and the learners' own methods, with the wire's codec between.

Everything but processes, network and checkpoints is the product's: who trains, what the parts of a proposal hold, how
streams are folded, how ballots are read and decided. So a figure of the comparison is a figure of the product.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from collective_coordinator.attempt import read_ballot
from collective_coordinator.errors import LearnerError
from collective_coordinator.spool import Spool, StoredWeights
from collective_coordinator.strategies.base import Ballot, Inbound, Strategy
from collective_learner.messages import summary_to_bytes
from collective_learner.mli import MachineLearningInterface, TrainingOptions, Weights
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.assembly import Assembly
from collective_learner.wire.codec import decode, encode
from collective_learner.wire.parts import parse_part

LIMIT = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Played:
    """What came of the rounds.

    Parameters
    ----------
    weights
        What all learners hold at the end.
    accepted
        How many rounds were.
    vote_scores
        The mean of the learners' vote scores for what they hold, at the beginning and after each accepted round.
    """

    weights: Weights
    accepted: int
    vote_scores: tuple[float, ...]


def play(strategy: Strategy, learners: Mapping[str, MachineLearningInterface], *, rounds: int) -> Played:
    """Drive learners through rounds."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(1) as arithmetic:
        return asyncio.run(_play(strategy, learners, rounds, Path(directory), arithmetic))


async def _play(
    strategy: Strategy,
    learners: Mapping[str, MachineLearningInterface],
    rounds: int,
    directory: Path,
    arithmetic: ThreadPoolExecutor,
) -> Played:
    first = next(iter(learners.values())).mli_get_current_weights()
    # The weights held and the strategy's state beside them; like the coordinator, no file is kept longer than needed.
    files = [Spool(directory / "weights-0")]
    held, weights = await _kept(_sent(first), files[0])
    state: StoredWeights | None = None
    scores = _ballots(learners, weights)
    _accept(learners, weights)
    vote_scores = [_mean(scores)]
    accepted = rejected = 0
    for number in range(1, rounds + 1):
        streams: dict[str, AsyncIterator[bytes]] = {}
        summaries: dict[str, pb.TrainingSummary] = {}
        trainers = strategy.trainers(round_number=number, live=list(learners))
        for name in trainers:
            learners[name].mli_set_training_options(
                TrainingOptions(round=number, proximal_mu=strategy.training.proximal_mu)
            )
            proposed = learners[name].mli_propose_weights()
            summary = summary_to_bytes(proposed.training_summary)
            if summary is not None:
                summaries[name] = pb.TrainingSummary.FromString(summary)
            streams[name] = _sent(proposed)
        spool, new_state = Spool(directory / f"weights-{number}"), Spool(directory / f"state-{number}")
        inbound = Inbound(
            streams=streams,
            summaries=summaries,
            limit=LIMIT,
            patience_s=60.0,
            enough=len(trainers),
            leave_out=_refuse,
            arithmetic=arithmetic,
            current=held,
            rejected=rejected,
            state=state,
            new_state=new_state,
        )
        stored, weights = await _kept(strategy.merge(inbound), spool)
        ballots = _ballots(learners, weights)
        decision = strategy.decide(
            trainers=trainers, ballots=ballots, held={name: ballot.vote_score for name, ballot in scores.items()}
        )
        if decision.accepted:
            held, state = stored, new_state.stored() if strategy.keeps_state else None
            _accept(learners, weights)
            scores = ballots
            vote_scores.append(_mean(scores))
            accepted, rejected = accepted + 1, 0
            files, outdated = [spool, new_state], files
        else:
            rejected += 1
            outdated = [spool, new_state]
        for file in outdated:
            file.discard()
    for file in files:
        file.discard()
    final = next(iter(learners.values())).mli_get_current_weights()
    return Played(weights=final, accepted=accepted, vote_scores=tuple(vote_scores))


async def _sent(weights: Weights) -> AsyncIterator[bytes]:
    for part in encode(weights).parts(summary=summary_to_bytes(weights.training_summary)):
        yield part


async def _kept(parts: AsyncIterator[bytes], spool: Spool) -> tuple[StoredWeights, Weights]:
    """Receive a proposal as a learner does, and keep its bytes as the coordinator does."""
    assembly = Assembly(limit=LIMIT)
    async for message in parts:
        assembly.take(message)
        spool.append(parse_part(message).payload)
    buffer, _ = assembly.finish()
    stored = spool.stored()
    return stored, decode(buffer)


def _ballots(learners: Mapping[str, MachineLearningInterface], weights: Weights) -> dict[str, Ballot]:
    ballots = {}
    for name, learner in learners.items():
        judged = learner.mli_test_weights(weights)
        answer = pb.ProposedWeights(vote_score=judged.vote_score, test_score=judged.test_score, vote=judged.vote)
        ballots[name] = read_ballot(answer)
    return ballots


def _accept(learners: Mapping[str, MachineLearningInterface], weights: Weights) -> None:
    for learner in learners.values():
        learner.mli_accept_weights(weights)


def _mean(ballots: Mapping[str, Ballot]) -> float:
    return statistics.fmean(ballot.vote_score for ballot in ballots.values())


def _refuse(name: str, error: LearnerError) -> NoReturn:
    raise AssertionError(f"{name}: {error}")
