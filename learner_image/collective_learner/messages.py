"""Between the Machine Learning Interface's objects and the wire's messages."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from collective_learner.mli import DiffPrivBudget, ErrorCodes, TrainingSummary
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.parts import WireError


def summary_to_bytes(summary: TrainingSummary | None, *, trained_from: bytes | None = None) -> bytes | None:
    """Serialise a training summary for the first part of a proposal.

    Parameters
    ----------
    summary
        What the learner tells.
    trained_from
        What its server adds: the digest of the weights that the training began with, empty for its very first ones.
    """
    if summary is None:
        if trained_from is None:
            return None
        summary = TrainingSummary()
    message = pb.TrainingSummary(
        trained_from=trained_from,
        examples=summary.examples,
        metrics={name: float(value) for name, value in summary.metrics.items()},
        error_code=int(summary.error_code),
    )
    if (budget := summary.dp_budget) is not None:
        message.dp_budget.CopyFrom(
            pb.DiffPrivBudget(
                target_epsilon=budget.target_epsilon,
                target_delta=budget.target_delta,
                consumed_epsilon=budget.consumed_epsilon,
                consumed_delta=budget.consumed_delta,
            )
        )
    return message.SerializeToString(deterministic=True)


def summary_from_bytes(data: bytes | None) -> TrainingSummary | None:
    """Read the training summary of a proposal.

    Raises
    ------
    WireError
        It is no such message, or holds an error code that is not known here.
    """
    if data is None:
        return None
    try:
        message = pb.TrainingSummary.FromString(data)
        error_code = ErrorCodes(message.error_code)
    except (ValueError, DecodeError) as error:
        raise WireError(f"the training summary cannot be read: {error}") from error
    budget = None
    if message.HasField("dp_budget"):
        budget = DiffPrivBudget(
            target_epsilon=message.dp_budget.target_epsilon,
            target_delta=message.dp_budget.target_delta,
            consumed_epsilon=message.dp_budget.consumed_epsilon,
            consumed_delta=message.dp_budget.consumed_delta,
        )
    return TrainingSummary(
        dp_budget=budget, examples=message.examples, metrics=dict(message.metrics), error_code=error_code
    )
