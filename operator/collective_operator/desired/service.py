"""The headless Service that gives every learner pod its DNS name."""

from __future__ import annotations

from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.metadata import metadata
from collective_operator.desired.platform import Platform


def learners_service(task: CollectiveTask, platform: Platform) -> dict[str, Any]:
    """Build the Service; a learner's name resolves before the pod is ready, as the coordinator itself waits for it."""
    endpoint = platform.learner_endpoint(task, 0)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(task, name=names.learners(task.name), component=names.LEARNER),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.TASK_LABEL: task.name, names.COMPONENT_LABEL: names.LEARNER},
            "ports": [
                {"name": "mli", "port": endpoint.port, "targetPort": "mli"},
                {"name": "metrics", "port": endpoint.metrics_port, "targetPort": "metrics"},
            ],
        },
    }
