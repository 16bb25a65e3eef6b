"""Voted rounds that a script drives itself, over learners in its own process or behind clients.

For tutorials, first tries and tests: there is no checkpoint, and an error of any learner ends the round. A task, or
``collective demo``, drives the same rounds and outlives crashes.

Remote learners test at the same time, each in a thread that only waits for the network. Local ones take turns, since
frameworks keep random state and sessions by process. Each learner gets arrays of its own unless it `accepts_views`:
accepted weights that learners shared would be one model, and who trains in place would train them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import TypeVar

from collective_learner.client import GRPCLearnerClient
from collective_learner.mli import MachineLearningInterface, TrainingOptions, Weights
from collective_learner.results import Result
from collective_learner.template import owned

_T = TypeVar("_T")


def set_equal_weights(learners: Sequence[MachineLearningInterface]) -> None:
    """Give the first learner's weights to all, so that they have something to vote on.

    Parameters
    ----------
    learners
        At least one; models of one architecture.
    """
    _check(learners)
    weights = learners[0].mli_get_current_weights()
    _by_each(learners, lambda _, learner: learner.mli_accept_weights(_for(learner, weights)))


def initial_result(learners: Sequence[MachineLearningInterface]) -> Result:
    """Have every learner score its own weights: where the lines of a plot begin.

    Returns
    -------
    Result
        With the vote True throughout, and without a proposer.
    """
    _check(learners)
    scored = _by_each(learners, lambda _, learner: learner.mli_test_weights(learner.mli_get_current_weights()))
    return Result(
        vote=True,
        votes=[True] * len(scored),
        vote_scores=[float(each.vote_score) for each in scored],
        test_scores=[float(each.test_score) for each in scored],
    )


def collective_learning_round(
    learners: Sequence[MachineLearningInterface], vote_threshold: float, round_index: int
) -> Result:
    """Run one round: one learner trains and proposes, all test, and all accept if enough of the others approve.

    Parameters
    ----------
    learners
        At least one, all with the same weights.
    vote_threshold
        The share of the other learners that must approve, from 0 to 1. At 0, or without others, all is accepted.
    round_index
        The number of the round, at least 0: learner ``round_index % len(learners)`` proposes. It also goes into the
        randomness of the training.

    Raises
    ------
    ValueError
        There are no learners, or a number is out of its range.
    LearnerCallError
        A remote learner refuses, fails or is gone.
    """
    _check(learners)
    if not 0 <= vote_threshold <= 1:
        raise ValueError(f"vote_threshold: {vote_threshold!r}, a number from 0 to 1 is needed")
    proposer = round_index % len(learners)
    learners[proposer].mli_set_training_options(TrainingOptions(round=round_index))
    proposal = learners[proposer].mli_propose_weights()
    # Kept for the accept: who is handed the very weights that it tested needs no second test.
    theirs = [_for(learner, proposal) for learner in learners]
    tested = _by_each(learners, lambda index, learner: learner.mli_test_weights(theirs[index]))
    votes = [bool(each.vote) for each in tested]
    approvals = sum(vote for index, vote in enumerate(votes) if index != proposer)
    # In decimals, as it was written: three times a threshold of 0.1 must not come out above three tenths.
    accepted = approvals >= Fraction(str(vote_threshold)) * (len(learners) - 1)
    if accepted:
        _by_each(learners, lambda index, learner: learner.mli_accept_weights(theirs[index]))
    return Result(
        vote=accepted,
        votes=votes,
        vote_scores=[float(each.vote_score) for each in tested],
        test_scores=[float(each.test_score) for each in tested],
        block_proposer=proposer,
        training_summary=proposal.training_summary,
    )


def _check(learners: Sequence[MachineLearningInterface]) -> None:
    if not learners:
        raise ValueError("learners: none given, at least one is needed")


def _for(learner: MachineLearningInterface, weights: Weights) -> Weights:
    """Give a learner weights that nobody else writes into."""
    return weights if learner.accepts_views else owned(weights)


def _by_each(
    learners: Sequence[MachineLearningInterface], work: Callable[[int, MachineLearningInterface], _T]
) -> list[_T]:
    """Do something with every learner, remote ones at the same time; the answers are in the learners' order."""
    remote = [index for index, learner in enumerate(learners) if isinstance(learner, GRPCLearnerClient)]
    answers: dict[int, _T] = {}
    with ThreadPoolExecutor(max_workers=max(len(remote), 1), thread_name_prefix="learner") as pool:
        waiting: dict[int, Future[_T]] = {index: pool.submit(work, index, learners[index]) for index in remote}
        for index, learner in enumerate(learners):
            if index not in waiting:
                answers[index] = work(index, learner)
        answers |= {index: future.result() for index, future in waiting.items()}
    return [answers[index] for index in range(len(learners))]
