"""How fast a learner trains, told while it does.

A number that is known only when a training has ended shows nothing of one that takes an hour, and a jump at its end
shows no speed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collective_learner.mli import MachineLearningInterface, TrainingSummary


@dataclass(slots=True)
class Training:
    """One training, as it goes on."""

    mli: MachineLearningInterface
    before: int
    started: float
    told: int = 0

    def ended(self, summary: TrainingSummary | None) -> None:
        """Take what a learner tells that does not count by itself: the examples of its training set."""
        if self.mli.examples_trained is None and summary is not None:
            self.told = summary.examples

    @property
    def seen(self) -> int:
        """Examples so far."""
        counted = self.mli.examples_trained
        return self.told if counted is None else counted - self.before


class TrainingProgress(Collector):
    """The series of all trainings of a server's learners, read when they are asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = 0
        self._last: tuple[int, float] | None = None
        self._running: Training | None = None

    @contextmanager
    def training(self, mli: MachineLearningInterface) -> Iterator[Training]:
        """Follow a training while the block lasts."""
        training = Training(mli, mli.examples_trained or 0, time.monotonic())
        with self._lock:
            self._running = training
        try:
            yield training
        finally:
            with self._lock:
                self._running, self._last = None, _of(training)
                self._seen += self._last[0]

    def collect(self) -> Iterable[Metric]:
        """Give the series as they are now; before the first training there is no speed."""
        with self._lock:
            running = None if self._running is None else _of(self._running)
            seen, last = self._seen, self._last
        now = last if running is None or not running[0] else running
        total = seen + (running[0] if running else 0)
        yield CounterMetricFamily("collective_examples", "Examples trained on.", value=total)
        if now is not None:
            yield GaugeMetricFamily(
                "collective_examples_per_second",
                "Speed of the training that goes on, or else of the last one.",
                value=now[0] / max(now[1], 1e-9),
            )


def _of(training: Training) -> tuple[int, float]:
    return training.seen, time.monotonic() - training.started
