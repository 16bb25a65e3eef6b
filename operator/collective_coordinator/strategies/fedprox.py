"""FedProx: FedAvg whose learners are held near the weights that the round began with.

Their loss has the term mu/2 x ||w - w_round||^2 added, so that sites that differ do not run away from each other within
a round. The averaging is FedAvg's; the term is the learners' part. Source: Li et al., "Federated Optimization in
Heterogeneous Networks", MLSys 2020.
"""

from __future__ import annotations

from collective_coordinator.aggregation.reduce import Aggregation, mean
from collective_coordinator.strategies.base import Training
from collective_coordinator.strategies.fedavg import FedAvg
from collective_coordinator.strategies.gate import Gate


class FedProx(FedAvg):
    """FedAvg with a proximal term in the learners' loss.

    Parameters
    ----------
    mu
        Strength of the term, at least 0.
    fraction, seed, aggregation, gate
        FedAvg's.
    """

    def __init__(
        self,
        *,
        mu: float,
        fraction: str = "1",
        seed: int = 0,
        aggregation: Aggregation = mean,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(
            fraction=fraction, seed=seed, aggregation=aggregation, gate=gate, training=Training(proximal_mu=mu)
        )
