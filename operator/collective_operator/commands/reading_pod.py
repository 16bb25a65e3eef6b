"""The pod that reads a task's volume once its coordinator has gone: restricted, read only, and gone by itself.

It is the task's, so it goes with it, but carries none of its labels: the operator neither counts nor removes it.
"""

from __future__ import annotations

from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.coordinator_pod import RESULTS_PORT, STATE_DIR
from collective_operator.desired.metadata import metadata
from collective_operator.desired.pod import TMP, container_security, pod_spec

Manifest = dict[str, Any]

PORT = 8082
_LIFE_SECONDS = 3600
_IDLE_SECONDS = 60
_LIMITS = {"cpu": "1", "memory": "256Mi"}
_REQUESTS = {"cpu": "50m", "memory": "64Mi"}
_TAKEN_OVER = ("nodeSelector", "tolerations", "affinity", "imagePullSecrets", "runtimeClassName", "securityContext")
"""Of what the task says of its coordinator's pod: where the volume can be mounted, and the image be had."""


def reading_pod(task: CollectiveTask, *, name: str, image: str) -> Manifest:
    """Build the pod."""
    container = {
        "name": "results",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "collective_coordinator.results"],
        "args": [f"--state-dir={STATE_DIR}", f"--port={PORT}", f"--idle-seconds={_IDLE_SECONDS}"],
        "ports": [{"name": RESULTS_PORT, "containerPort": PORT}],
        "resources": {"requests": dict(_REQUESTS), "limits": dict(_LIMITS)},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "state", "mountPath": STATE_DIR, "readOnly": True}, TMP],
    }
    volumes = [{"name": "state", "persistentVolumeClaim": {"claimName": names.coordinator(task.name)}}]
    spec = pod_spec(container=container, volumes=volumes, restart_policy="Never")
    overrides = task.spec.coordinator.pod_overrides
    laid = {field: overrides.spec[field] for field in _TAKEN_OVER if field in overrides.spec} if overrides else {}
    about = metadata(task, name=name, component="results")
    del about["labels"][names.TASK_LABEL], about["labels"][names.MANAGED_BY_LABEL]
    for owner in about["ownerReferences"]:
        owner |= {"controller": False, "blockOwnerDeletion": False}
    spec |= {"activeDeadlineSeconds": _LIFE_SECONDS, **laid}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}
