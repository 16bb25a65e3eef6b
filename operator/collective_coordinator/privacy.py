"""What the learners have told of their privacy budgets, and who may not train any more.

Each learner counts for itself and decides for itself; the coordinator remembers. A learner whose budget does not last
for another training still tests and votes, and is not asked to train again. One that tells less than it told before has
lost its ledger, which it cannot notice by itself: nobody knows any more what it spends, so it does not train either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from collective_coordinator.errors import BudgetSpentError
from collective_coordinator.metrics import Metrics
from collective_coordinator.scores import finite, short
from collective_learner.wire import interface_pb2 as pb

_EXCEEDED = 1
"""DP_BUDGET_EXCEEDED among the error codes of the learners' interface."""

_LOST_BELOW = 0.9
"""Of what was told before: two accountants may differ a little, a ledger that begins anew differs by more."""

Documents = Mapping[str, Mapping[str, Any]]


class Budgets:
    """The budgets of a task's learners.

    Parameters
    ----------
    told
        What was told before a restart, as `documents` gave it.
    metrics
        Told of every budget.
    """

    def __init__(self, told: Documents, *, metrics: Metrics) -> None:
        self._told: dict[str, dict[str, Any]] = {name: dict(document) for name, document in told.items()}
        self._news: set[str] = set()
        self._metrics = metrics
        for name in self._told:
            self._show(name)

    @property
    def spent(self) -> dict[str, str]:
        """Who may not train any more, and why."""
        return {name: document["spent"] for name, document in self._told.items() if "spent" in document}

    def note(self, name: str, summary: pb.TrainingSummary) -> None:
        """Take what a learner told beside its weights.

        Raises
        ------
        BudgetSpentError
            There was no training, or it must not be used.
        """
        if summary.HasField("dp_budget"):
            budget, before = summary.dp_budget, self._told.get(name, {})
            now, known = finite(budget.consumed_epsilon) or 0.0, before.get("consumedEpsilon") or 0.0
            if now < _LOST_BELOW * known:
                self._end(
                    name,
                    f"its privacy ledger is lost: it had spent epsilon {known:.4g}, and says {now:.4g}",
                )
            self._told[name] = {
                "targetEpsilon": finite(short(budget.target_epsilon)),
                "targetDelta": finite(short(budget.target_delta)),
                "consumedEpsilon": finite(short(budget.consumed_epsilon)),
                "consumedDelta": finite(short(budget.consumed_delta)),
            }
            self._news.add(name)
            self._show(name)
        if summary.error_code == _EXCEEDED:
            budget = summary.dp_budget
            self._end(
                name,
                f"its privacy budget is spent: epsilon {budget.consumed_epsilon:.4g} of {budget.target_epsilon:.4g}, "
                "and another training would go past it",
            )

    def record(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Give what belongs into the round's line, in the order of these names: what is new, and who may not train."""
        return {
            name: dict(self._told[name])
            for name in names
            if name in self._told and (name in self._news or "spent" in self._told[name])
        }

    def documents(self) -> dict[str, dict[str, Any]]:
        """Give what a restart has to know."""
        return {name: dict(document) for name, document in self._told.items()}

    def recorded(self) -> None:
        """Note that the line is kept."""
        self._news.clear()

    def forget(self, name: str) -> None:
        """Drop who has left: the name may come back with other data."""
        self._told.pop(name, None)
        self._news.discard(name)

    def _end(self, name: str, why: str) -> None:
        self._told.setdefault(name, {})["spent"] = why
        self._news.add(name)
        raise BudgetSpentError(why, learner=name)

    def _show(self, name: str) -> None:
        told = self._told[name]
        target, consumed = told.get("targetEpsilon"), told.get("consumedEpsilon")
        if target is not None and consumed is not None:
            self._metrics.privacy(name, target=target, consumed=consumed)
