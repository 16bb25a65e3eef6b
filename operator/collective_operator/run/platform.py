"""The laptop as a place for tasks: every learner has a loopback port of its own."""

from __future__ import annotations

from dataclasses import dataclass

from collective_operator.api import CollectiveTask
from collective_operator.cluster.local_ports import LOOPBACK, LoopbackPorts
from collective_operator.desired.platform import Endpoint, Platform


@dataclass(frozen=True, kw_only=True)
class LocalPlatform(Platform):
    """Endpoints that were reserved before the task began."""

    endpoints: tuple[Endpoint, ...]
    """By learner index."""

    def domain(self, task: CollectiveTask) -> str:
        """Tell that learners have no names."""
        return ""

    def learner_endpoint(self, task: CollectiveTask, index: int) -> Endpoint:
        """Return where the coordinator finds a learner."""
        return self.endpoints[index]


def local_platform(ports: LoopbackPorts, *, learners: int) -> LocalPlatform:
    """Reserve what a task of so many learners needs."""
    return LocalPlatform(
        learner_image="local",
        coordinator_image="local",
        secured=False,
        results_port=None,
        coordinator_port=ports.reserve(),
        poll_seconds=0.2,
        endpoints=tuple(
            Endpoint(host=LOOPBACK, port=ports.reserve(), metrics_port=ports.reserve()) for _ in range(learners)
        ),
    )
