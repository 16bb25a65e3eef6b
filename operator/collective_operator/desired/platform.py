"""Where tasks run: what a manifest needs to know that no task says.

A cluster gives every pod an address and so every learner the same port; on a laptop all share one address and each gets
a port of its own.  That difference lives here, so that the builders and the reconcile have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from collective_operator.api import CollectiveTask
from collective_operator.desired import names

DASHBOARD = "collective-task"
"""The uid of the dashboard of one task, which the chart brings."""

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a learner serves."""

    host: str
    port: int
    metrics_port: int

    @property
    def address(self) -> str:
        """What a gRPC client dials."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRules:
    """Who beside a task's own pods may speak with them, as NetworkPolicyPeers: dicts, as Kubernetes writes them."""

    operator: tuple[dict[str, Any], ...] = ()
    """Where the operator's own requests come from.  None: it runs outside of the cluster, and nobody can tell."""

    metrics: tuple[dict[str, Any], ...] = ()
    """Who may read metrics; none means nobody."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A Kubernetes cluster; a laptop overrides where learners are, and the ports."""

    learner_image: str
    """The image of learners whose task names none."""

    coordinator_image: str
    """The image that holds ``python -m collective_coordinator``: the operator's own."""

    image_pull_policy: PullPolicy = "IfNotPresent"
    """Applied to both images."""

    coordinator_port: int = 8080
    """Where a coordinator serves /status, /metrics and its probes."""

    results_port: int | None = 8082
    """Where a coordinator lets its results be fetched from, on its pod's loopback address; None is nowhere."""

    secured: bool = True
    """Pods have keys and certificates, where their task does not say otherwise."""

    network: NetworkRules | None = None
    """What the NetworkPolicies of pods say; None makes none."""

    grafana_url: str = ""
    """Where Grafana is, for people; empty: nobody said."""

    poll_seconds: float = 5
    """How often a coordinator is asked for its progress while it runs; nothing else tells the operator of a round."""

    def dashboard(self, task: CollectiveTask) -> str:
        """Link to the task's page in Grafana; empty where nobody said where that is."""
        if not self.grafana_url:
            return ""
        return f"{self.grafana_url.rstrip('/')}/d/{DASHBOARD}?var-namespace={task.namespace}&var-task={task.name}"

    def domain(self, task: CollectiveTask) -> str:
        """Name the domain of a task's hosts, where the resolvers of its own pods look first; empty: there is none."""
        return f"{task.namespace}.svc"

    def learner_endpoint(self, task: CollectiveTask, index: int) -> Endpoint:
        """Return where the coordinator finds a learner.

        By its name under the headless Service: a new pod of that name is found without a new configuration.
        """
        host = f"{names.learner(task.name, index)}.{names.learners(task.name)}.{self.domain(task)}"
        return Endpoint(host=host, port=9995, metrics_port=9091)
