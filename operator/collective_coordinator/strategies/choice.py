"""From the configuration to the strategy; numpy is imported for those that calculate, and for no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from collective_coordinator.config import StrategySpec
from collective_coordinator.strategies.base import Strategy
from collective_coordinator.strategies.cyclic import Cyclic
from collective_coordinator.strategies.gate import Gate
from collective_coordinator.strategies.vote import Vote

if TYPE_CHECKING:
    from collective_coordinator.aggregation.server import Method


def strategy_of(spec: StrategySpec, *, seed: int) -> Strategy:
    """Make the strategy that the configuration names; the seed is for those that choose who trains."""
    gate = None if spec.gate is None else Gate(spec.gate)
    if spec.type == "Vote":
        return Vote(threshold=spec.threshold)
    if spec.type == "Cyclic":
        return Cyclic(gate=gate)
    return _averaging(spec, fraction=spec.fraction, seed=seed, gate=gate)


def _averaging(spec: StrategySpec, **common: Any) -> Strategy:
    from collective_coordinator.aggregation.reduce import mean, median, trimmed_mean  # noqa: PLC0415 - numpy
    from collective_coordinator.aggregation.server import ServerOptimizer  # noqa: PLC0415
    from collective_coordinator.strategies.fedavg import FedAvg  # noqa: PLC0415
    from collective_coordinator.strategies.fedopt import FedOpt  # noqa: PLC0415
    from collective_coordinator.strategies.fedprox import FedProx  # noqa: PLC0415

    common["aggregation"] = {"Mean": mean, "Median": median, "TrimmedMean": trimmed_mean(spec.trim)}[spec.aggregation]
    if spec.type == "FedProx":
        return FedProx(mu=spec.mu, **common)
    if spec.optimizer is not None:
        optimizer = spec.optimizer
        return FedOpt(
            optimizer=ServerOptimizer(
                method=cast("Method", optimizer.method),
                learning_rate=optimizer.learning_rate,
                beta1=optimizer.beta1,
                beta2=optimizer.beta2,
                tau=optimizer.tau,
            ),
            **common,
        )
    return FedAvg(**common)
