"""When a task ends: after its last round, when its score is good enough, or when nothing has got better for long.

A pure function of the last decision, so that a coordinator that was killed after the decision, and before it ended,
ends at its next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collective_coordinator.checkpoint import Snapshot


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a task ends. Scores are mean test scores of the model that the learners hold.

    Parameters
    ----------
    rounds
        At the latest after so many.
    test_score
        Enough; None: never.
    patience
        So many rounds may pass without an improvement; None: any number.
    min_delta
        What counts as an improvement: more than this, at least 0.
    """

    rounds: int
    test_score: float | None = None
    patience: int | None = None
    min_delta: float = 0.0

    def reached(self, snapshot: Snapshot) -> tuple[str, str] | None:
        """Give reason and message when the task ends with this decision; None when it goes on."""
        score = snapshot.held.test_score
        if self.test_score is not None and snapshot.round and score is not None and score >= self.test_score:
            return "TestScoreReached", (
                f"The mean test score {score:.4g} has reached {self.test_score:g} after round {snapshot.round}"
            )
        if self.patience is not None and snapshot.round - snapshot.progress.round >= self.patience:
            return "NoImprovement", (
                f"The mean test score has not improved by more than {self.min_delta:g} for {self.patience} rounds; it "
                f"was {snapshot.progress.score or 0.0:.4g} in round {snapshot.progress.round}"
            )
        if snapshot.round >= self.rounds:
            return "RoundsCompleted", f"All {self.rounds} rounds are decided"
        return None
