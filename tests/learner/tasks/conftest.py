"""Voted rounds without processes or wire: the rule of a round, in a loop, for learners of the built-in tasks."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from collective_learner.factory import DefaultMliFactory
from collective_learner.tasks import load_builtin_tasks


@dataclass(frozen=True)
class Outcome:
    """What came of the rounds: mean test score of what is held at the end, rounds accepted."""

    test_score: float
    accepted: int


@pytest.fixture(scope="session")
def factory() -> DefaultMliFactory:
    load_builtin_tasks()
    return DefaultMliFactory()


@pytest.fixture(scope="session")
def voted_rounds(factory: DefaultMliFactory) -> Callable[..., Outcome]:
    def run(model: str, loader: str, *, seed: int, learners: int = 5, rounds: int = 20) -> Outcome:
        seeded = json.dumps({"seed": seed})
        members = [
            factory.get_mli(model, seeded, loader, json.dumps({"seed": seed, "location": f"{index}/{learners}"}))
            for index in range(learners)
        ]
        test_score, accepted = 0.0, 0
        for turn in range(rounds):
            proposer = turn % learners
            weights = members[proposer].mli_propose_weights()
            verdicts = [member.mli_test_weights(weights) for member in members]
            approvals = sum(verdict.vote for index, verdict in enumerate(verdicts) if index != proposer)
            if approvals >= (learners - 1) * 0.5:
                accepted += 1
                test_score = statistics.fmean(verdict.test_score for verdict in verdicts)
                for member in members:
                    member.mli_accept_weights(weights)
        return Outcome(test_score, accepted)

    return run
