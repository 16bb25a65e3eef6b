"""A learner's pod: the Machine Learning Interface's server beside one site's data.

Its READY means that it has a model and takes part, as its health service says to whoever speaks gRPC: set up by the
coordinator, not stopping. It is not ready while modules are imported and data is loaded. Nothing waits for it but
people, budgets of disruption and the task's own condition: the coordinator sets up learners that are not ready, whose
names resolve all the same (`service`). Whether to restart a learner is another question, `/healthz`, which it answers
from its first second on.
"""

from __future__ import annotations

from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.api.task import Learner
from collective_operator.desired import names
from collective_operator.desired.credentials import coordinator_name, is_secured, with_credential
from collective_operator.desired.kueue import queued
from collective_operator.desired.metadata import metadata
from collective_operator.desired.overrides import overridden
from collective_operator.desired.platform import Platform
from collective_operator.desired.pod import TMP, container_security, pod_spec

Manifest = dict[str, Any]

CODE_DIR = "/opt/collective/code"
STATE_DIR = "/var/lib/collective-learner"
GPUS = "COLLECTIVE_GPUS"
"""Tells a learner how many GPUs it has to train on."""
_CODE = "code"
_STATE = "state"
_SHARED_MEMORY = {"name": "shared-memory", "mountPath": "/dev/shm"}  # noqa: S108 - a mount of its own, in a pod


def learner_pod(task: CollectiveTask, index: int, platform: Platform) -> Manifest:
    """Build the pod of one learner.

    Its restartPolicy is Always: a server that ended has not finished.  The startup probe leaves two minutes to start
    Python on a cold node; the liveness probe is slow to judge, because loading a framework's libraries, like training,
    can keep a process busy for long.  Probes are plain HTTP, as a kubelet's gRPC probe speaks no TLS.
    """
    learners = task.spec.learners
    learner = learners.learner(index)
    name = names.learner(task.name, index)
    endpoint = platform.learner_endpoint(task, index)
    lives = {"httpGet": {"path": "/healthz", "port": endpoint.metrics_port}}
    takes_part = {"httpGet": {"path": "/readyz", "port": endpoint.metrics_port}}
    container: Manifest = {
        "name": names.LEARNER,
        "image": learner.image or platform.learner_image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["python", "-m", "collective_learner"],
        "args": [
            f"--port={endpoint.port}",
            f"--metrics-port={endpoint.metrics_port}",
            *(f"--import={module}" for module in learners.imports),
            *([f"--code={CODE_DIR}"] if learners.code_config_map else []),
            # A folder of its own, also where several learners share a volume: on a laptop.
            *([f"--state-dir={STATE_DIR}/{name}"] if learners.storage else []),
        ],
        "ports": [
            {"name": "mli", "containerPort": endpoint.port},
            {"name": "metrics", "containerPort": endpoint.metrics_port},
        ],
        "startupProbe": {**lives, "timeoutSeconds": 5, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**takes_part, "timeoutSeconds": 5, "periodSeconds": 2, "failureThreshold": 5},
        "livenessProbe": {**lives, "timeoutSeconds": 20, "periodSeconds": 30, "failureThreshold": 6},
        "resources": _resources(learner),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [TMP],
    }
    volumes: list[Manifest] = []
    if learners.code_config_map:
        container["volumeMounts"] = [{"name": _CODE, "mountPath": CODE_DIR, "readOnly": True}, TMP]
        volumes.append({"name": _CODE, "configMap": {"name": learners.code_config_map}})
    if learners.storage:
        container["volumeMounts"] = [{"name": _STATE, "mountPath": STATE_DIR}, *container["volumeMounts"]]
        volumes.append({"name": _STATE, "persistentVolumeClaim": {"claimName": name}})
    if learner.gpus is not None:
        container["env"] = [{"name": GPUS, "value": str(learner.gpus.count)}]
    if learner.gpus is not None and learner.gpus.count:
        # Processes that load data for a GPU, and GPUs that train together, pass on there what does not fit into 64 MiB.
        container["volumeMounts"] = [_SHARED_MEMORY, *container["volumeMounts"]]
        volumes.append({"name": _SHARED_MEMORY["name"], "emptyDir": {"medium": "Memory"}})
    labels = {names.INDEX_LABEL: str(index)} | ({names.SITE_LABEL: learner.site} if learner.site else {})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(task, name=name, component=names.LEARNER, **labels),
        "spec": {
            "hostname": name,
            "subdomain": names.learners(task.name),
            **pod_spec(container=container, volumes=volumes, restart_policy="Always"),
        },
    }
    if is_secured(task, platform):
        pod = with_credential(pod, clients=(coordinator_name(task),))
    return queued(task, overridden(pod, learner.pod_overrides))


def _resources(learner: Learner) -> Manifest:
    requests, limits = dict(learner.resources.requests), dict(learner.resources.limits)
    if learner.gpus is not None and learner.gpus.count:
        requests[learner.gpus.resource] = limits[learner.gpus.resource] = learner.gpus.count
    return {"requests": requests, "limits": limits}
