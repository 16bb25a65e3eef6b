"""How rounds are decided and when they end: `spec.strategy` and `spec.stop`.

Names and bounds are those of the coordinator's configuration, so that nothing is accepted here that fails there; a test
holds the two together.  What a strategy does, and when to choose it, stands in the CRD.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from collective_operator.api.base import Part

StrategyType = Literal["Vote", "FedAvg", "FedProx", "FedOpt", "Cyclic"]
Aggregation = Literal["Mean", "Median", "TrimmedMean"]


class Vote(Part):
    """Strategy Vote: which share of the other learners must find a proposal better."""

    threshold: float = Field(default=0.5, ge=0, le=1)


class FedAvg(Part):
    """Strategy FedAvg: which share of the learners trains in a round."""

    fraction: float = Field(default=1.0, gt=0, le=1)


class FedProx(Part):
    """Strategy FedProx: FedAvg, and how strongly learners are held near the weights that the round began with."""

    mu: float = Field(default=0.01, ge=0, le=1e9)
    fraction: float = Field(default=1.0, gt=0, le=1)


class FedOpt(Part):
    """Strategy FedOpt: FedAvg, and the optimizer to which the averaged update is a gradient."""

    method: Literal["AvgM", "Adagrad", "Adam", "Yogi"] = "Adam"
    learning_rate: float | None = Field(default=None, ge=0, le=1e6)
    beta1: float | None = Field(default=None, ge=0, le=0.999999)
    """None, of both: the coordinator's default, which depends on the method."""
    beta2: float = Field(default=0.99, ge=0, le=0.999999)
    tau: float = Field(default=1e-3, gt=0, le=1e6)
    fraction: float = Field(default=1.0, gt=0, le=1)


class TrimmedMean(Part):
    """Which share of the learners' values is dropped at each end."""

    share: float = Field(default=0.2, ge=0, le=0.49)


class Gate(Part):
    """The vote on what would be accepted."""

    type: Literal["Vote"] = "Vote"
    threshold: float = Field(default=0.5, ge=0, le=1)


class Strategy(Part):
    """How a round is decided."""

    type: StrategyType = "Vote"
    vote: Vote | None = None
    fed_avg: FedAvg | None = None
    fed_prox: FedProx | None = None
    fed_opt: FedOpt | None = None
    aggregation: Aggregation | None = None
    trimmed_mean: TrimmedMean | None = None
    gate: Gate | None = None

    @property
    def chosen(self) -> Vote | FedAvg | FedProx | FedOpt | None:
        """The settings of the chosen type, given or not; None for a type without any."""
        match self.type:
            case "Vote":
                return self.vote or Vote()
            case "FedAvg":
                return self.fed_avg or FedAvg()
            case "FedProx":
                return self.fed_prox or FedProx()
            case "FedOpt":
                return self.fed_opt or FedOpt()
            case _:
                return None

    @property
    def label(self) -> str:
        """Name it in a word for people: ``FedAvg``, or ``FedAvg+Vote`` behind a gate."""
        return f"{self.type}+{self.gate.type}" if self.gate else self.type


class Stop(Part):
    """When to end before the last round."""

    test_score: float | None = Field(default=None, ge=-1e9, le=1e9)
    patience: int | None = Field(default=None, ge=1, le=100_000)
    min_delta: float | None = Field(default=None, ge=0, le=1e9)
