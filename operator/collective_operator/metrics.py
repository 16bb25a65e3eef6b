"""The operator's metrics.

Histograms carry no task's name, and a task's own gauges are made at the scrape from what the workers know now: a task
that is gone leaves no series behind, and a round is a value and never a label.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from collective_operator.cluster.protocol import TaskKey
from collective_operator.wording import unstamp

_IDENTITY = ("namespace", "name")
_STATES = ("desired", "ready", "failed")


class TaskBook(Collector):
    """The tasks as their workers last saw them."""

    def __init__(self) -> None:
        self._tasks: dict[TaskKey, dict[str, Any]] = {}

    def note(self, key: TaskKey, task: dict[str, Any]) -> None:
        """Remember of a task what its series need; its spec may be one that nobody here can read."""
        spec, status = task.get("spec"), task.get("status") or {}
        self._tasks[key] = {
            "uid": task["metadata"].get("uid", ""),
            "strategy": str(_at(spec, "strategy", "type") or "Vote"),
            "rounds": _number(_at(spec, "rounds")),
            "round_timeout": _number(_at(spec, "policy", "roundTimeoutSeconds")),
            "gpus": _gpus(_at(spec, "learners")),
            "phase": status.get("phase"),
            "learner_states": Tally(learner.get("state", "") for learner in status.get("learnerStatuses", ())),
            "attempts": status.get("coordinator", {}).get("attempts", 0),
            "status": {field: status.get(field, {}) for field in ("conditions", "round", "learners")},
        }

    def forget(self, key: TaskKey) -> None:
        """Drop a task that is gone."""
        self._tasks.pop(key, None)

    def keys(self) -> set[TaskKey]:
        """Name the tasks that have series."""
        return set(self._tasks)

    def collect(self) -> Iterable[Metric]:
        """Make the gauges; called by Prometheus' client at each scrape."""
        series = _TaskSeries()
        for key, task in self._tasks.items():
            series.add((key.namespace, key.name), task)
        return series.families()


class _TaskSeries:
    """The gauges of one scrape."""

    def __init__(self) -> None:
        self._info = _family("info", "What a task is; always 1.", "uid", "strategy")
        self._phase = _family("phase", "1 for the phase that a task is in.", "phase")
        self._condition = _family(
            "condition", "1 for the status that a condition of a task has, and its reason.", "type", "status", "reason"
        )
        self._round = _family("round", "Rounds decided so far.")
        self._planned = _family("rounds_planned", "Rounds that the task asks for.")
        self._last = _family("last_round_timestamp_seconds", "When the operator last saw a round decided, Unix time.")
        self._timeout = _family(
            "round_timeout_seconds",
            "How long one training or one test of a round may take: policy.roundTimeoutSeconds.",
        )
        self._learners = _family(
            "learners", "Learners of a task by state; ready and failed are parts of desired.", "state"
        )
        self._states = _family(
            "learner_states", "Learners of a task by what status.learnerStatuses says of them.", "state"
        )
        self._gpus = _family("gpus", "GPUs, or parts of them, that the learners of a task ask for.")
        self._attempts = _family(
            "coordinator_attempts", "Crashes and losses of a task's coordinator since a round was last decided."
        )

    def add(self, name: tuple[str, str], task: Mapping[str, Any]) -> None:
        """Add one task."""
        status = task["status"]
        self._info.add_metric([*name, task["uid"], task["strategy"]], 1)
        if task["phase"]:
            self._phase.add_metric([*name, task["phase"]], 1)
        for found in status["conditions"]:
            self._condition.add_metric([*name, found["type"], found["status"], found["reason"]], 1)
        self._round.add_metric(name, status["round"].get("current", 0))
        self._planned.add_metric(name, task["rounds"])
        decided = unstamp(status["round"].get("lastTime"))
        if decided:
            self._last.add_metric(name, decided.timestamp())
        if task["round_timeout"]:
            self._timeout.add_metric(name, task["round_timeout"])
        for state in _STATES:
            self._learners.add_metric([*name, state], status["learners"].get(state, 0))
        for state, count in task["learner_states"].items():
            self._states.add_metric([*name, state], count)
        self._gpus.add_metric(name, task["gpus"])
        self._attempts.add_metric(name, task["attempts"])

    def families(self) -> Iterable[Metric]:
        """Give all of them, also those without a series."""
        return list(vars(self).values())


def _family(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"collective_task_{name}", documentation, labels=[*_IDENTITY, *labels])


def _at(spec: object, *path: str) -> object:
    """Find a member; None where there is none."""
    for name in path:
        spec = spec.get(name) if isinstance(spec, Mapping) else None
    return spec


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _gpus(learners: object) -> float:
    """Count the GPUs that learners ask for: each site's own, or what all are given."""
    common, sites = _at(learners, "gpus"), _at(learners, "sites")
    if isinstance(sites, list) and sites:
        return sum(_number(_at(_at(site, "gpus") or common, "count")) for site in sites)
    return _number(_at(learners, "count")) * _number(_at(common, "count"))


class OperatorMetrics:
    """Everything that the operator's /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
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
