"""A task that is to stand still: its pods go, the coordinator first.

What a coordinator has decided is on its volume before anybody hears of it, so its end is a safe point of the rounds,
whenever it comes.  Learners go once it is gone: one that saw them go might judge that the task has failed.
"""

from __future__ import annotations

from collections.abc import Iterator

from collective_operator.cluster.protocol import Observed
from collective_operator.pods import overdue_in
from collective_operator.reconcile.actions import Delete, Step
from collective_operator.situation import Situation

_MARGIN_SECONDS = 5
"""After a coordinator should have been killed: a node that is gone must not keep the learners' GPUs."""


def send_away(seen: Situation, observed: Observed) -> Iterator[Step]:
    """Delete what is there, in order."""
    coordinator = seen.coordinator
    if coordinator and not coordinator.ended:
        if coordinator.leaves_by is None:
            yield Step(actions=(Delete(observed.pods[coordinator.name]),))
            return
        left = (coordinator.leaves_by - seen.now).total_seconds() + _MARGIN_SECONDS
        if left > 0:
            yield Step(wait=left)
            return
    for pod in seen.pods:
        if pod.leaves_by is None:
            yield Step(actions=(Delete(observed.pods[pod.name]),))
    yield Step(wait=overdue_in(seen.pods, seen.now))
