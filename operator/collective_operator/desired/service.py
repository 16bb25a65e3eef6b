"""The headless Service that gives every learner pod its DNS name."""

from __future__ import annotations

from collections.abc import Mapping
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


def leads_to_learners(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether a Service's spec still says what it was made with; the API server adds much to it."""
    ports = there.get("ports") or ()
    return (
        all(there.get(member) == value for member, value in wanted.items() if member != "ports")
        and len(ports) == len(wanted["ports"])
        and all(port.items() <= found.items() for port, found in zip(wanted["ports"], ports, strict=True))
    )


def put_right(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Have a Service's spec say again what it was made with; whatever else is there stays, but for another type."""
    left = {member: value for member, value in there.items() if member not in ("type", "externalName")}
    return {**left, **wanted}
