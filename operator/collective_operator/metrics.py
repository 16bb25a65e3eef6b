"""The operator's metrics.

Histograms carry no task's name, and a task's own gauges are made at the scrape from what the workers know now: a task
that is gone leaves no series behind, and a round is a value and never a label.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from collective_operator.cluster.protocol import TaskKey
from collective_operator.conditions import unstamp

_IDENTITY = ("namespace", "name")
_STATES = ("desired", "ready", "failed")


class TaskBook(Collector):
    """The tasks as their workers last saw them."""

    def __init__(self) -> None:
        self._tasks: dict[TaskKey, dict[str, Any]] = {}

    def note(self, key: TaskKey, task: dict[str, Any]) -> None:
        """Remember of a task what its series need."""
        self._tasks[key] = {
            "uid": task["metadata"].get("uid", ""),
            "strategy": (task.get("spec") or {}).get("strategy", {}).get("type", "Vote"),
            "rounds": (task.get("spec") or {}).get("rounds", 0),
            "status": {field: task.get("status", {}).get(field, {}) for field in ("conditions", "round", "learners")},
        }

    def forget(self, key: TaskKey) -> None:
        """Drop a task that is gone."""
        self._tasks.pop(key, None)

    def keys(self) -> set[TaskKey]:
        """Name the tasks that have series."""
        return set(self._tasks)

    def collect(self) -> Iterable[Metric]:
        """Make the gauges; called by Prometheus' client at each scrape."""
        info = GaugeMetricFamily(
            "collective_task_info", "What a task is; always 1.", labels=[*_IDENTITY, "uid", "strategy"]
        )
        condition = GaugeMetricFamily(
            "collective_task_condition",
            "1 for the status that a condition of a task has.",
            labels=[*_IDENTITY, "type", "status"],
        )
        rounds = GaugeMetricFamily("collective_task_round", "Rounds decided so far.", labels=_IDENTITY)
        planned = GaugeMetricFamily(
            "collective_task_rounds_planned", "Rounds that the task asks for.", labels=_IDENTITY
        )
        learners = GaugeMetricFamily(
            "collective_task_learners",
            "Learners of a task by state; ready and failed are parts of desired.",
            labels=[*_IDENTITY, "state"],
        )
        last = GaugeMetricFamily(
            "collective_task_last_round_timestamp_seconds",
            "When the operator last saw a round decided, Unix time.",
            labels=_IDENTITY,
        )
        for key, task in self._tasks.items():
            name, status = (key.namespace, key.name), task["status"]
            info.add_metric([*name, task["uid"], task["strategy"]], 1)
            planned.add_metric(name, task["rounds"])
            rounds.add_metric(name, status["round"].get("current", 0))
            decided = unstamp(status["round"].get("lastTime"))
            if decided:
                last.add_metric(name, decided.timestamp())
            for found in status["conditions"]:
                condition.add_metric([*name, found["type"], found["status"]], 1)
            for state in _STATES:
                learners.add_metric([*name, state], status["learners"].get(state, 0))
        return info, condition, rounds, planned, learners, last


class OperatorMetrics:
    """Everything that the operator's /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tasks = TaskBook()
        self.registry.register(self.tasks)
        self.reconciles = Counter(
            "collective_reconcile", "Turns of the reconcile loop.", ["result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "collective_reconcile_duration_seconds",
            "How long a turn takes.",
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.requests = Counter(
            "collective_k8s_api_requests",
            "Requests to the Kubernetes API; code 0: nothing answered.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.leader = Gauge("collective_leader", "1 while this operator is the one that acts.", registry=self.registry)
        Info("collective_build", "The operator's version.", registry=self.registry).info(
            {"version": version("collective-operator")}
        )
        for result in ("success", "error"):
            self.reconciles.labels(result)
