"""What rounds that a script drives itself have brought: one `Result` a round, and a table of the latest.

The names are those that colearn's users know. A round that a task drives tells the same in its rounds.jsonl.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click

from collective_learner.mli import ErrorCodes, TrainingSummary


@dataclass
class Result:
    """How one round went; the lists have one entry a learner, in the learners' order.

    Parameters
    ----------
    vote
        Whether the proposal was accepted.
    votes
        What each learner votes; the proposer's own does not count.
    vote_scores
        The proposal's score on each learner's vote set.
    test_scores
        The same on each test set; 0 for a learner without one.
    block_proposer
        The index of the learner that trained; None where nobody did.
    training_summary
        What the proposer told about its training.
    """

    vote: bool = True
    votes: list[bool] = field(default_factory=list)
    vote_scores: list[float] = field(default_factory=list)
    test_scores: list[float] = field(default_factory=list)
    block_proposer: int | None = None
    training_summary: TrainingSummary | None = None


@dataclass
class Results:
    """All rounds so far, the oldest first."""

    data: list[Result] = field(default_factory=list)


def print_results(results: Results) -> None:
    """Print the latest round as a table.

    Raises
    ------
    ValueError
        There is no round yet.
    """
    if not results.data:
        raise ValueError("results: no round yet; append initial_result(learners) first")
    click.echo(table(results.data[-1]))


def table(result: Result) -> str:
    """Write one round down: who proposed, whether it was accepted, then a line a learner."""
    trained = result.block_proposer is not None
    lines = [f"selected proposer:  {result.block_proposer}"] if trained else []
    lines += [
        f"new model accepted: {'yes' if result.vote else 'no'}",
        f"  {'learner':<8} {'vote':<10} {'test score':>10} {'vote score':>10}",
    ]
    rows = zip(result.votes, result.test_scores, result.vote_scores, strict=True)
    for index, (vote, test_score, vote_score) in enumerate(rows):
        said = "(proposer)" if index == result.block_proposer else "yes" if vote else "no"
        lines.append(f"  {index:<8} {said:<10} {test_score:>10.4g} {vote_score:>10.4g}")
    summary = result.training_summary
    if summary is not None and summary.dp_budget is not None:
        budget = summary.dp_budget
        lines.append(
            f"  privacy budget of {result.block_proposer}: epsilon {budget.consumed_epsilon:.4g} of "
            f"{budget.target_epsilon:.4g}, delta {budget.consumed_delta:.4g} of {budget.target_delta:.4g}"
        )
    if summary is not None and summary.error_code is not ErrorCodes.NONE:
        lines.append(f"  {result.block_proposer} did not train: {ErrorCodes(summary.error_code).name}")
    return "\n".join([*lines, ""])


def score_title(score: str | Callable[..., Any] | object) -> str:
    """Name a criterion for people: its own text, or the name of the function or the class that scores."""
    if isinstance(score, str):
        return score
    return str(getattr(score, "__name__", None) or type(score).__name__)
