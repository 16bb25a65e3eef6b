"""The coordinator's pod: the one that drives the rounds.

It ends by itself, with a verdict in its termination message; OnFailure restarts it in place only when it crashed, and
it then goes on from the checkpoint on its volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.config_map import CONFIG_KEY
from collective_operator.desired.credentials import is_secured, with_credential
from collective_operator.desired.kueue import queued
from collective_operator.desired.metadata import metadata
from collective_operator.desired.overrides import overridden
from collective_operator.desired.platform import Platform
from collective_operator.desired.pod import TMP, container_security, pod_spec

Manifest = dict[str, Any]

CONFIG_DIR = "/etc/collective"
STATE_DIR = "/var/lib/collective"
RESULTS_PORT = "results"
"""The name of the port from which results can be fetched."""
_REQUESTS = {"cpu": "100m", "memory": "128Mi"}


def own_container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the coordinator's own container in its pod: a mesh may have put another before it."""
    containers = pod["spec"]["containers"]
    found: Mapping[str, Any] = next((each for each in containers if each.get("name") == names.COORDINATOR), {})
    return found or containers[0]


def coordinator_pod(task: CollectiveTask, platform: Platform) -> Manifest:
    """Build the coordinator's pod."""
    name = names.coordinator(task.name)
    resources = task.spec.coordinator.resources
    port = {"port": platform.coordinator_port}
    container: Manifest = {
        "name": names.COORDINATOR,
        "image": platform.coordinator_image,
        "imagePullPolicy": platform.image_pull_policy,
        "command": ["python", "-m", "collective_coordinator"],
        "args": [
            f"--config={CONFIG_DIR}/{CONFIG_KEY}",
            f"--state-dir={STATE_DIR}",
            f"--port={platform.coordinator_port}",
        ],
        "ports": [{"name": "http", "containerPort": platform.coordinator_port}],
        "startupProbe": {"httpGet": {"path": "/healthz", **port}, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {"httpGet": {"path": "/readyz", **port}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", **port},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "resources": {
            # Where there is a limit and no request, Kubernetes takes the limit: a default above it would be refused.
            "requests": {name: amount for name, amount in _REQUESTS.items() if name not in resources.limits}
            | resources.requests,
            "limits": dict(resources.limits),
        },
        "securityContext": container_security(),
        # A verdict is written; of a crash, the end of the log tells.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "state", "mountPath": STATE_DIR},
            TMP,
        ],
    }
    if (secret := task.spec.result.secret) is not None:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    if domain := platform.domain(task):
        container["args"].append(f"--domain={domain}")
    if platform.results_port is not None:
        container["args"].append(f"--results-port={platform.results_port}")
        # It listens on the loopback address alone: this tells who forwards a port which one.
        container["ports"].append({"name": RESULTS_PORT, "containerPort": platform.results_port})
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": name}},
        {"name": "state", "persistentVolumeClaim": {"claimName": name}},
    ]
    overrides = task.spec.coordinator.pod_overrides
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(task, name=name, component=names.COORDINATOR),
        "spec": pod_spec(container=container, volumes=volumes, restart_policy="OnFailure"),
    }
    if is_secured(task, platform):
        pod = with_credential(pod)
    return queued(task, overridden(pod, (overrides,) if overrides else ()))
