"""All children of a task, in the order of their creation: what a pod needs comes before the pod.

A child is named at once and built when asked: a task of 256 learners is looked at often, and its pods are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.config_map import config_map
from collective_operator.desired.coordinator_pod import coordinator_pod
from collective_operator.desired.learner_pod import learner_pod
from collective_operator.desired.network_policy import coordinator_policy, learners_policy
from collective_operator.desired.platform import Platform
from collective_operator.desired.service import learners_service
from collective_operator.desired.volume_claim import learner_volume_claim, volume_claim

ChildKind = Literal["Service", "ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "Pod"]


@dataclass(frozen=True, slots=True)
class Child:
    """One object that a running task has."""

    kind: ChildKind
    name: str
    build: Callable[[], dict[str, Any]]
    index: int | None = None
    """The learner that it is of; None of everything else."""


def desired_children(task: CollectiveTask, platform: Platform) -> Iterator[Child]:
    """Yield every child of a task that runs."""
    coordinator = names.coordinator(task.name)
    yield Child("Service", names.learners(task.name), partial(learners_service, task, platform))
    yield Child("ConfigMap", coordinator, partial(config_map, task, platform))
    if (rules := platform.network) is not None:
        yield Child("NetworkPolicy", names.learners(task.name), partial(learners_policy, task, platform, rules))
        yield Child("NetworkPolicy", coordinator, partial(coordinator_policy, task, platform, rules))
    yield Child("PersistentVolumeClaim", coordinator, partial(volume_claim, task))
    for index in range(task.spec.learners.size):
        if (storage := task.spec.learners.storage) is not None:
            name = names.learner(task.name, index)
            yield Child("PersistentVolumeClaim", name, partial(learner_volume_claim, task, index, storage), index)
        yield Child("Pod", names.learner(task.name, index), partial(learner_pod, task, index, platform), index)
    yield Child("Pod", coordinator, partial(coordinator_pod, task, platform))
