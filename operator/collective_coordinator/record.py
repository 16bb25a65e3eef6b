"""A decision as it is kept: the snapshot that follows from the one before, and the line that people read.

Pure, so that what a restart finds is what the loop would have known.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from collective_coordinator.attempt import Proposal
from collective_coordinator.checkpoint import Best, Progress, Snapshot, Standing
from collective_coordinator.privacy import Documents
from collective_coordinator.scores import finite, mean
from collective_coordinator.strategies.base import Decision

LOG = logging.getLogger(__name__)


def decided_snapshot(
    before: Snapshot | None,
    number: int,
    proposal: Proposal,
    decision: Decision,
    *,
    record: dict[str, Any] | None,
    privacy: Documents,
    min_delta: float,
) -> Snapshot:
    """Give the state after a decision.

    Parameters
    ----------
    before
        The state after the decision before; None before round 0.
    number
        Of the round.
    proposal, decision
        What was decided.
    record
        The round's line.
    privacy
        What the learners have told of it.
    min_delta
        What the mean test score must gain to count as an improvement.
    """
    ballots = proposal.ballots
    latest = Standing(
        round=number,
        proposer=_proposer(proposal),
        test_score=mean(ballot.test_score for ballot in ballots.values()),
        vote_score=mean(ballot.vote_score for ballot in ballots.values()),
    )
    scores = dict(before.scores) if before else {}
    scores.update({name: ballot.test_score for name, ballot in ballots.items()})
    examples = dict(before.examples) if before else {}
    examples.update({name: told.examples for name, told in proposal.summaries.items() if told.examples})
    judged = {name: ballot.vote_score for name, ballot in ballots.items()}
    if before is None:
        return Snapshot(
            round=number,
            accepted=0,
            weights=proposal.weights,
            state=None,
            held=latest,
            latest=latest,
            scores=scores,
            held_scores=judged,
            record=record,
            privacy=privacy,
            examples=examples,
            best=Best(round=number, score=latest.test_score, weights=proposal.weights),
            progress=Progress(round=number, score=latest.test_score),
        )
    if not decision.accepted:
        return replace(
            before, round=number, latest=latest, scores=scores, record=record, privacy=privacy, examples=examples
        )
    best, progress = before.best, before.progress
    if _above(latest.test_score, best.score):
        best = Best(round=number, score=latest.test_score, weights=proposal.weights)
    if _above(latest.test_score, progress.score, by=min_delta):
        progress = Progress(round=number, score=latest.test_score)
    return replace(
        before,
        round=number,
        accepted=before.accepted + 1,
        weights=proposal.weights,
        held=latest,
        latest=latest,
        scores=scores,
        held_scores=judged,
        record=record,
        privacy=privacy,
        examples=examples,
        best=best,
        progress=progress,
    )


def record_of(
    strategy: str,
    number: int,
    proposal: Proposal,
    decision: Decision,
    left_out: Mapping[str, str],
    *,
    privacy: Documents,
) -> dict[str, Any]:
    """Build the line of rounds.jsonl. Learners stand in the order of the configuration, whoever answered first."""
    ballots = proposal.ballots
    record: dict[str, Any] = {
        "round": number,
        "strategy": strategy,
        "proposer": _proposer(proposal),
        "trainers": list(proposal.trainers),
        "accepted": decision.accepted,
        "votes": dict(decision.votes),
        "voteScores": {name: ballot.vote_score for name, ballot in ballots.items()},
        "testScores": {name: ballot.test_score for name, ballot in ballots.items()},
        "seconds": {
            "propose": round(proposal.propose_s, 3),
            "test": round(proposal.test_s, 3),
            "accept": None if decision.accepted else 0.0,
        },
    }
    if decision.gain is not None:
        record["voteGain"] = finite(decision.gain)
    if left_out:
        record["leftOut"] = dict(left_out)
    if privacy:
        record["privacy"] = dict(privacy)
    return record


def log_round(record: Mapping[str, Any], snapshot: Snapshot, total: int) -> None:
    """Tell a decision in one line of the log."""
    seconds = sum(value or 0.0 for value in record["seconds"].values())
    latest, votes = snapshot.latest, record["votes"]
    trained = latest.proposer or f"{len(record['trainers'])} learners"
    if not snapshot.round:
        LOG.info(
            "round 0: all learners hold the weights of %s, test score %.4g, %.2f s",
            trained,
            latest.test_score or 0.0,
            seconds,
        )
        return
    LOG.info(
        "round %d/%d: %s proposed, %s%s, test score %.4g, vote score %.4g, %.2f s",
        snapshot.round,
        total,
        trained,
        "accepted" if record["accepted"] else "rejected",
        f" ({sum(votes.values())} of {len(votes)} votes)" if votes else "",
        latest.test_score or 0.0,
        latest.vote_score or 0.0,
        seconds,
    )


def _proposer(proposal: Proposal) -> str | None:
    """Name the one who trained; nobody where several have."""
    return proposal.trainers[0] if len(proposal.trainers) == 1 else None


def _above(score: float | None, other: float | None, *, by: float = 0.0) -> bool:
    return score is not None and (other is None or score > other + by)
