"""The coordinator's series. One registry for one task: its learners' names are bounded by the task."""

from __future__ import annotations

import contextlib
import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_RPC_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800)
_ROUND_BUCKETS = (0.01, 0.05, 0.2, 1, 5, 20, 60, 300, 1200, 3600)


class Metrics:
    """Counts what the coordinator does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._rounds = Counter(
            "collective_rounds",
            "Rounds by result: accepted, rejected, or retried because they could not be decided.",
            ["result"],
            registry=self.registry,
        )
        self._phases = Histogram(
            "collective_round_duration_seconds",
            "Time of a round's phases: propose, test, accept.",
            ["phase"],
            buckets=_ROUND_BUCKETS,
            registry=self.registry,
        )
        self._votes = Counter(
            "collective_votes",
            "Votes that counted: for, against.",
            ["vote"],
            registry=self.registry,
        )
        self._scores = Gauge(
            "collective_score",
            "Each learner's last score of a proposal, on its test or its vote set.",
            ["kind", "learner"],
            registry=self.registry,
        )
        self._left_out = Counter(
            "collective_left_out",
            "Rounds that were decided without a learner, by learner.",
            ["learner"],
            registry=self.registry,
        )
        self._rpcs = Histogram(
            "collective_rpc_duration_seconds",
            "Time of the calls to learners, by method and gRPC status code.",
            ["method", "code"],
            buckets=_RPC_BUCKETS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "collective_rpc_bytes",
            "Bytes of weights, with their frames: sent to learners, received from them.",
            ["direction"],
            registry=self.registry,
        )
        self._privacy = Gauge(
            "collective_privacy_epsilon",
            "Privacy budget by learner: target and consumed epsilon.",
            ["learner", "kind"],
            registry=self.registry,
        )
        self._checkpoints = Histogram(
            "collective_checkpoint_duration_seconds",
            "Time until a decision was safe on disk.",
            buckets=_RPC_BUCKETS,
            registry=self.registry,
        )
        self._uploads = Counter(
            "collective_upload_errors",
            "Attempts to bring the result to spec.result.location that came to nothing.",
            registry=self.registry,
        )
        self._trackers = Counter(
            "collective_tracking_errors",
            "Attempts to tell a tracker (mlflow, tensorBoard) of rounds that came to nothing; they are told later.",
            ["tracker"],
            registry=self.registry,
        )
        self._sent = self._bytes.labels("sent")
        self._received = self._bytes.labels("received")

    def round(self, result: str) -> None:
        """Count a round: accepted, rejected or retried."""
        self._rounds.labels(result).inc()

    def phase(self, phase: str, seconds: float) -> None:
        """Count the time of a phase."""
        self._phases.labels(phase).observe(seconds)

    def vote(self, *, approves: bool) -> None:
        """Count a vote."""
        self._votes.labels("for" if approves else "against").inc()

    def score(self, learner: str, *, test: float, vote: float) -> None:
        """Keep a learner's last scores."""
        self._scores.labels("test", learner).set(test)
        self._scores.labels("vote", learner).set(vote)

    def left_out(self, learner: str) -> None:
        """Count a round that was decided without this learner."""
        self._left_out.labels(learner).inc()

    def forget(self, learner: str) -> None:
        """Drop the series of a learner that has left."""
        for series, labels in (
            (self._scores, ("test", learner)),
            (self._scores, ("vote", learner)),
            (self._privacy, (learner, "target")),
            (self._privacy, (learner, "consumed")),
            (self._left_out, (learner,)),
        ):
            with contextlib.suppress(KeyError):
                series.remove(*labels)

    def rpc(self, method: str, code: str, seconds: float) -> None:
        """Count a call."""
        self._rpcs.labels(method, code).observe(seconds)

    def sent(self, size: int) -> None:
        """Count bytes of weights that went out."""
        self._sent.inc(size)

    def received(self, size: int) -> None:
        """Count bytes of weights that came in."""
        self._received.inc(size)

    def privacy(self, learner: str, *, target: float, consumed: float) -> None:
        """Keep a learner's privacy budget."""
        for kind, value in (("target", target), ("consumed", consumed)):
            if math.isfinite(value):
                self._privacy.labels(learner, kind).set(value)

    def checkpoint(self, seconds: float) -> None:
        """Count the time of a checkpoint."""
        self._checkpoints.observe(seconds)

    def upload_failed(self) -> None:
        """Count an attempt to bring the result somewhere."""
        self._uploads.inc()

    def tracking_failed(self, tracker: str) -> None:
        """Count an attempt to tell a tracker of rounds."""
        self._trackers.labels(tracker).inc()
