"""Prometheus finds the operator's pods and those of tasks, and names them as dashboards and alerts expect."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..monitoring.tools import ROOT, find
from .control_plane import ControlPlane, eventually
from .playground import Coordinator, Namespace, Operator
from .rights import CHART, HOW_TO, find_helm
from .test_life import start

RELEASE = "collective"


@pytest.fixture(scope="module")
def promtool() -> str:
    return find("promtool")


def rendered(namespace: str) -> list[dict[str, Any]]:
    helm = find_helm() or pytest.skip(HOW_TO)
    command = [
        helm,
        "template",
        RELEASE,
        str(CHART),
        f"--namespace={namespace}",
        "--set=metrics.podMonitor.enabled=true",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def documented() -> dict[str, Any]:
    """The job of docs/monitoring.md."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    (block,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", text, flags=re.DOTALL)
    (job,) = yaml.safe_load(block)["scrape_configs"]
    return dict(job)


def meta(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What Prometheus' discovery of pods says of one: a target for each port, with its labels as it spells them."""
    described, status = pod["metadata"], pod["status"]
    labels = {
        "__meta_kubernetes_namespace": described["namespace"],
        "__meta_kubernetes_pod_name": described["name"],
        **{
            f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}": value
            for name, value in described["labels"].items()
        },
    }
    for container in pod["spec"]["containers"]:
        for port in container["ports"]:
            address = f"{status['podIP']}:{port['containerPort']}"
            yield {
                "targets": [address],
                "labels": {**labels, "__meta_kubernetes_pod_container_port_name": port["name"]},
            }


def discovered(promtool: str, pods: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, str]]:
    """What Prometheus makes of these pods: labels by address.

    Debian's Prometheus cannot look into clusters: what it would find there is given to it.
    """
    job = documented()
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["static_configs"] = [target for pod in pods for target in meta(pod)]
    config = folder / "prometheus.yaml"
    config.write_text(json.dumps({"scrape_configs": [job]}))
    command = [promtool, "check", "service-discovery", "--timeout=2s", str(config), job["job_name"]]

    def told() -> list[dict[str, Any]]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return list(json.loads(done.stdout) or ())

    # It looks for two seconds, and finds nothing where the machine stood still for so long.
    targets = eventually(told, what="targets")
    found = [(it["labels"], it["discoveredLabels"]["__address__"]) for it in targets if it.get("labels")]
    return {
        labels["pod"]: {"address": address, **{key: labels[key] for key in labels if key not in ("pod", "instance")}}
        for labels, address in found
    }


def test_pods_are_found_and_named(
    promtool: str,
    plane: ControlPlane,
    namespace: Namespace,
    operator: Operator,
    coordinator: Coordinator,
    tmp_path: Path,
) -> None:
    sites = [{"name": "clinic", "location": "a"}, {"name": "institute", "location": "b"}]
    start(namespace, coordinator, learners={"sites": sites})
    manifests = rendered(namespace.name)
    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    pod = {"metadata": {"name": "operator-0", **template["metadata"]}, "spec": template["spec"]}
    pod["spec"] = {key: value for key, value in pod["spec"].items() if key != "serviceAccountName"}
    plane.request("POST", f"{namespace.core}/pods", pod)
    namespace.run_pod("operator-0", address="127.0.0.9")

    found = discovered(promtool, list(namespace.pods().values()), tmp_path)
    common = {"job": "collective-learning", "namespace": namespace.name}
    learner = {**common, "address": "127.0.0.1:9091", "component": "learner", "task": "digits"}
    assert {pod: {key: labels[key] for key in labels if not key.startswith("__")} for pod, labels in found.items()} == {
        "operator-0": {**common, "address": "127.0.0.9:8081", "component": "operator"},
        "digits-coordinator": {
            **common,
            "address": f"{coordinator.address}:8080",
            "component": "coordinator",
            "task": "digits",
        },
        "digits-learner-0": {**learner, "learner": "learner-0", "site": "clinic"},
        "digits-learner-1": {**learner, "learner": "learner-1", "site": "institute"},
    }


def test_the_monitors_of_the_chart_name_them_alike() -> None:
    """What the Prometheus Operator makes of a PodMonitor adds namespace and pod by itself."""
    plain = [
        {
            "sourceLabels": rule["source_labels"],
            "targetLabel": rule["target_label"],
            **{key: rule[key] for key in ("regex", "replacement") if key in rule},
        }
        for rule in documented()["relabel_configs"]
        if rule.get("target_label") not in (None, "namespace", "pod")
    ]
    monitors = [manifest for manifest in rendered("collective") if manifest["kind"] == "PodMonitor"]
    endpoints = [endpoint for monitor in monitors for endpoint in monitor["spec"]["podMetricsEndpoints"]]
    assert len(endpoints) == 3
    assert all(endpoint["relabelings"] == plain for endpoint in endpoints)
