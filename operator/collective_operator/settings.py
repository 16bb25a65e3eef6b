"""What an operator process is told, all of it in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from collective_operator.cluster.memory import CHILD_KINDS
from collective_operator.desired.platform import NetworkRules, PullPolicy

Access = Literal["direct", "proxy", "auto"]

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

DEFAULT_IMAGE = "collective-operator:dev"
DEFAULT_LEARNER_IMAGE = "collective-learner:dev"


def in_cluster() -> bool:
    """Tell whether this process runs in a pod with a way to its API server."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def own_namespace() -> str:
    """Name the namespace that this process runs in; `default` outside of a cluster."""
    try:
        return _OWN_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `collective operator`."""

    namespaces: tuple[str, ...] = ()
    """The namespaces whose tasks are served; none named means all, which takes a ClusterRole."""

    learner_image: str = DEFAULT_LEARNER_IMAGE
    """The image of learners whose task names none."""

    coordinator_image: str = DEFAULT_IMAGE
    """The image of coordinators: the operator's own, so that the two are of one version."""

    image_pull_policy: PullPolicy = "IfNotPresent"
    """Applied to learners and coordinators alike."""

    coordinator_access: Access = "auto"
    """How coordinators are asked for their progress: at their pod's address (direct), through the API server (proxy),
    or whichever fits where the operator itself runs (auto)."""

    certificate_hours: float = 2160
    """How long the certificates of pods are valid, 90 days; they are renewed after two thirds of it, so that an
    operator may be away for the last."""

    network_policies: bool = True
    """Whether pods are guarded by NetworkPolicies."""

    operator_from: tuple[dict[str, Any], ...] = ()
    """NetworkPolicyPeers that this operator's requests to coordinators come from; none lets in everybody there."""

    metrics_from: tuple[dict[str, Any], ...] = ()
    """NetworkPolicyPeers that may read the metrics of pods; none means nobody."""

    grafana_url: str = ""
    """Where people find Grafana; tasks' status links to their dashboards there, and to nothing when it is empty."""

    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet come from other addresses
    """The address of /metrics and /healthz."""

    metrics_port: int = 8081
    """The port of /metrics and /healthz."""

    leader_election: bool = False
    """Whether a Lease decides which of several operators acts; without it there must be only one."""

    lease_namespace: str = ""
    """The namespace of the Lease; empty: that of the operator's own pod."""

    lease_name: str = "collective-operator"
    """The name of the Lease, the same for all operators of an installation."""

    poll_seconds: float = 5
    """How often a running coordinator is asked; less often where hundreds of tasks run."""

    resync_seconds: float = 300
    """How often every unfinished task is looked at with no event at all: a watch that went deaf costs this at most."""

    settle_seconds: float = 0.5
    """The least time between two turns of one task, so that a burst of pod events makes one turn and not hundreds."""

    stuck_seconds: float = 600
    """A turn that takes longer makes /healthz fail; each of its requests has a deadline of 40 seconds."""

    @property
    def certificate_life(self) -> timedelta:
        """How long the certificates of pods are valid."""
        return timedelta(hours=self.certificate_hours)

    @property
    def child_kinds(self) -> tuple[str, ...]:
        """The kinds of children that tasks have here."""
        return tuple(kind for kind in CHILD_KINDS if kind != "NetworkPolicy" or self.network_policies)

    @property
    def network(self) -> NetworkRules | None:
        """What NetworkPolicies say beside what tasks do."""
        rules = NetworkRules(operator=self.operator_from, metrics=self.metrics_from)
        return rules if self.network_policies else None

    @property
    def direct(self) -> bool:
        """Whether coordinators are asked at their pod's address."""
        return in_cluster() if self.coordinator_access == "auto" else self.coordinator_access == "direct"
