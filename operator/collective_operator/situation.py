"""One look at a task: its spec, its pods, and what its coordinator says, each already understood.

Everything that decides or reports reads this and not manifests, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.cluster.protocol import Observed
from collective_operator.conditions import Reason
from collective_operator.desired import names
from collective_operator.pods import Pod, Trouble, read_pod
from collective_operator.progress import Progress, read_progress, verdict_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a task ended."""

    complete: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A task as it is now."""

    task: CollectiveTask
    before: Mapping[str, Any]
    """The status as it stands."""
    learners: tuple[Pod | None, ...]
    """By index; None where there is no pod."""
    coordinator: Pod | None
    progress: Progress | None
    """What the coordinator says now; None when it says nothing."""
    verdict: Progress | None
    """The coordinator's last word, when it has spoken."""
    refused: Mapping[str, str]
    """Children that the cluster would not create, and what it said."""
    now: datetime
    absent_config_maps: frozenset[str] = frozenset()
    """What spec.learners.codeFrom names and is not there."""

    @property
    def ready_learners(self) -> int:
        """How many learner pods are ready."""
        return sum(pod is not None and pod.ready for pod in self.learners)

    def learner_trouble(self, index: int) -> Trouble | None:
        """Tell what is wrong with a learner, or with making its pod."""
        pod = self.learners[index]
        if pod and (pod.trouble or pod.running):
            return pod.trouble
        return self.missing_code or (None if pod else self.refusal(names.learner(self.task.name, index)))

    @property
    def failed_import(self) -> Trouble | None:
        """Tell whose modules cannot be imported, and why; of several learners, the first."""
        troubles = (pod.trouble for pod in self.learners if pod)
        return next((trouble for trouble in troubles if trouble and trouble.reason is Reason.IMPORT_FAILED), None)

    @property
    def missing_code(self) -> Trouble | None:
        """Tell that the ConfigMap with the learners' modules is not there."""
        if not self.absent_config_maps:
            return None
        absent = ", ".join(sorted(self.absent_config_maps))
        return Trouble(
            reason=Reason.CODE_MISSING,
            message=f"there is no ConfigMap {absent}, which spec.learners.codeFrom names",
        )

    @property
    def coordinator_trouble(self) -> Trouble | None:
        """What is wrong with the coordinator, or with making its pod and what that needs."""
        if self.coordinator:
            return self.coordinator.trouble
        return self.refusal(names.coordinator(self.task.name)) or self.refusal(names.learners(self.task.name))

    def refusal(self, name: str) -> Trouble | None:
        """Tell what the cluster said when it would not create this child."""
        if name not in self.refused:
            return None
        return Trouble(reason=Reason.CREATE_REFUSED, message=f"{name}: {self.refused[name]}")


def look(
    *, task: CollectiveTask, before: Mapping[str, Any], observed: Observed, refused: Mapping[str, str], now: datetime
) -> Situation:
    """Understand what was observed."""
    pods = {name: read_pod(manifest) for name, manifest in observed.pods.items()}
    coordinator = pods.get(names.coordinator(task.name))
    said = read_progress(observed.progress, uid=task.uid) if coordinator else None
    verdict = said if said and said.is_verdict else verdict_of(coordinator)
    return Situation(
        task=task,
        before=before,
        learners=tuple(pods.get(names.learner(task.name, index)) for index in range(task.spec.learners.size)),
        coordinator=coordinator,
        progress=verdict or (said if coordinator and coordinator.running else None),
        verdict=verdict,
        refused=refused,
        now=now,
        absent_config_maps=observed.absent_config_maps,
    )
