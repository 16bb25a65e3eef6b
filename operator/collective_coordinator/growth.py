"""Weights that grow from round to round, such as trees: what they may come to weigh, and which strategies take them.

Learners say in the header of their weights what grows. It is looked at once everyone holds the same weights and before
anyone has trained, so that a task that cannot work fails at its beginning.
"""

from __future__ import annotations

from pathlib import Path

from collective_coordinator.aggregation.layout import LayoutError, header_bytes, parse_layout
from collective_coordinator.errors import TaskFailedError, storage_failure

_LENGTH = 8


def room_for(weights: Path, *, averages: bool, strategy: str) -> int:
    """Tell how many bytes weights may come to have that grow; blocks.

    Parameters
    ----------
    weights
        The file of those that everyone holds.
    averages
        Whether the strategy makes one model of several.
    strategy
        What people call it.

    Returns
    -------
    int
        0 for weights that do not grow, and for those in a format of the learners' own.

    Raises
    ------
    TaskFailedError
        They grow, and the strategy averages.
    """
    try:
        with weights.open("rb") as file:
            prefix = file.read(_LENGTH)
            layout = parse_layout(prefix + file.read(header_bytes(prefix) - _LENGTH))
    except LayoutError:
        return 0
    except OSError as error:
        raise storage_failure("the current weights cannot be read", error) from error
    if layout.growing and averages:
        raise TaskFailedError(
            "WeightsNotAveraged",
            f"strategy.type: {strategy} averages, and the tensor {next(iter(layout.growing))!r} cannot be averaged: "
            "its number of rows differs between learners and rounds, as with trees; strategy.type: Vote, or Cyclic, "
            "takes such models",
        )
    return layout.most_bytes if layout.growing else 0
