"""The ways to train that are compared: all make the same passes over the same data, together."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from collective_coordinator.config import StrategySpec, parse_config
from collective_coordinator.strategies.choice import strategy_of

from .rounds import Played, play
from .sites import Setting, accuracy

ALONE = StrategySpec(type="Cyclic")
"""With one learner: it trains, and keeps what came of it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method, one seed.

    Parameters
    ----------
    accuracy
        On the common test set.
    rounds, accepted
        How many rounds there were, and how many of them were accepted.
    worst_step
        The largest step for the worse that the mean vote score, a loss, made from what was held to what was accepted.
    """

    accuracy: float
    rounds: int
    accepted: int
    worst_step: float


@dataclass(frozen=True, kw_only=True)
class Method:
    """A strategy, and how long a training is.

    Parameters
    ----------
    name
        In the table.
    strategy
        As a task's configuration says it.
    epochs
        Passes over the data in a training; fewer make more rounds. None: the setting's.
    """

    name: str
    strategy: StrategySpec
    epochs: int | None = None

    def run(self, setting: Setting, seed: int) -> Result:
        """Train by the rounds that the setting's passes allow, and judge what came of it."""
        epochs = self.epochs or setting.epochs
        strategy = strategy_of(self.strategy, seed=seed)
        # All learners train in a round, or one: the same trainings, in more rounds.
        rounds = setting.passes // epochs * (setting.learners if strategy.alone else 1)
        played = play(strategy, setting.sites(seed, epochs=epochs), rounds=rounds)
        return _result(accuracy(setting.union(seed), played.weights), played, rounds)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """Every learner by itself; the mean of what they reach."""

    name: str = "alone"
    epochs: int | None = None

    def run(self, setting: Setting, seed: int) -> Result:
        """Train each, and judge each."""
        judge = setting.union(seed)
        rounds = setting.passes // setting.epochs
        played = [
            play(strategy_of(ALONE, seed=seed), {name: learner}, rounds=rounds)
            for name, learner in setting.sites(seed, epochs=setting.epochs).items()
        ]
        return _result(statistics.fmean(accuracy(judge, each.weights) for each in played), played[0], rounds)


@dataclass(frozen=True, kw_only=True)
class Centralised:
    """One learner with everybody's data: what privacy costs is measured from here."""

    name: str = "centralised"
    epochs: int | None = None

    def run(self, setting: Setting, seed: int) -> Result:
        """Train, and judge."""
        rounds = setting.passes // setting.epochs
        union = setting.union(seed)
        played = play(strategy_of(ALONE, seed=seed), {"all": union}, rounds=rounds)
        return _result(accuracy(union, played.weights), played, rounds)


def configured(strategy: dict[str, Any]) -> StrategySpec:
    """Read a strategy as the coordinator does, so that what is not given has the product's default."""
    return parse_config(
        json.dumps(
            {
                "version": 1,
                "task": {"name": "quality"},
                "model": {"name": "M"},
                "dataLoader": {"name": "D"},
                "rounds": 1,
                "strategy": strategy,
                "learners": [{"name": "learner-0", "address": "127.0.0.1:1"}],
            }
        )
    ).strategy


_AVG = configured({"type": "FedAvg"})
_GATED = configured({"type": "FedAvg", "gate": {"type": "Vote"}})
_M = configured({"type": "FedOpt", "fedOpt": {"method": "AvgM"}})
_ADAM = configured({"type": "FedOpt"})

METHODS: tuple[Method | Alone | Centralised, ...] = (
    Centralised(),
    Alone(),
    Method(name="Vote", strategy=configured({"type": "Vote"})),
    Method(name="FedAvg", strategy=_AVG),
    Method(name="FedAvg, gated", strategy=_GATED),
    Method(name="FedProx", strategy=configured({"type": "FedProx"})),
    Method(name="FedAvgM", strategy=_M),
    Method(name="FedAdam", strategy=_ADAM),
    Method(name="FedAvg, 5 passes", strategy=_AVG, epochs=5),
    Method(name="FedAvg, 5 passes, gated", strategy=_GATED, epochs=5),
    Method(name="FedAvg, 2 passes", strategy=_AVG, epochs=2),
    Method(name="FedAvg, 2 passes, gated", strategy=_GATED, epochs=2),
    Method(name="FedAvg, 1 pass", strategy=_AVG, epochs=1),
    Method(name="FedAvg, 1 pass, gated", strategy=_GATED, epochs=1),
    Method(name="FedAvgM, 1 pass", strategy=_M, epochs=1),
    Method(name="FedAdam, 1 pass", strategy=_ADAM, epochs=1),
)


def _result(reached: float, played: Played, rounds: int) -> Result:
    scores = played.vote_scores
    steps = [later - before for before, later in pairwise(scores)]
    return Result(accuracy=reached, rounds=rounds, accepted=played.accepted, worst_step=max(steps, default=0.0))
