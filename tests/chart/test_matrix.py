"""Whatever people install with, what comes out is what Kubernetes takes, from 1.28 to the newest."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from . import monitors
from .conftest import CHART, Helm, Render
from .matrix import DIGEST, EVERYTHING, MATRIX

VERSIONS = sorted({tuple(map(int, version.split(".")[:2])) for version in all_versions()})
SERVED = [f"{major}.{minor}" for major, minor in VERSIONS if (major, minor) >= (1, 28)]


@functools.cache
def valid(manifest: str) -> None:
    """Check one object against every version; most are the same for several sets of values."""
    for version in SERVED:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_every_manifest_is_what_kubernetes_takes(render: Render, values: dict[str, Any]) -> None:
    manifests = render(**values)
    names = [
        (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        for manifest in manifests
    ]
    assert len(set(names)) == len(names), "two objects of one name"
    for manifest in manifests:
        assert manifest["kind"] != "Service" or re.fullmatch("[a-z][a-z0-9-]{,62}", manifest["metadata"]["name"])
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            monitors.validate(manifest)
        elif manifest["kind"] != "CustomResourceDefinition":  # the API server judges that, in tests/cluster
            valid(json.dumps(manifest))


@pytest.mark.parametrize("release", ["2024", "1e3", "lab.radiology", "a" * 50 + ".b"])
def test_a_release_may_have_any_name_of_helms(helm: Helm, release: str) -> None:
    values = ["metrics.serviceMonitor.enabled", "metrics.podMonitor.enabled", "metrics.prometheusRule.enabled"]
    told = [f"--set={value}=true" for value in [*values, "grafana.dashboards.enabled"]]
    done = helm("template", release, str(CHART), "--namespace=0x10", *told)
    assert done.returncode == 0, done.stderr
    for manifest in filter(None, yaml.safe_load_all(done.stdout)):
        labels = manifest["metadata"]["labels"]
        assert (labels["app.kubernetes.io/instance"], labels["app.kubernetes.io/name"]) == (
            release,
            "collective-operator",
        )
        assert manifest["metadata"].get("namespace", "0x10") == "0x10"
        if manifest["kind"] == "Service":
            assert re.fullmatch("[a-z][a-z0-9-]{,62}", manifest["metadata"]["name"])
        elif manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            monitors.validate(manifest)


def test_another_chart_may_have_it_as_a_part(helm: Helm, tmp_path: Path) -> None:
    """With a name of its own, under a condition, beside values of all charts; a misspelt value is still an error."""
    part = {"name": "collective-operator", "version": "0.x", "repository": CHART.as_uri(), "alias": "learning"}
    about = {"apiVersion": "v2", "name": "lab", "version": "1.0.0"}
    part["condition"] = "learning.enabled"
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump({**about, "dependencies": [part]}))
    (tmp_path / "charts").mkdir()
    shutil.copytree(CHART, tmp_path / "charts" / "collective-operator")
    values = {"global": {"imageRegistry": "registry.example.com"}, "learning": {"enabled": True, "logLevel": "debug"}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("template", "site", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (deployment,) = of([found for found in yaml.safe_load_all(done.stdout) if found], "Deployment")
    assert deployment["metadata"]["name"] == "site-learning"
    assert "--log-level=debug" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    none = helm("template", "site", str(tmp_path), "--set=learning.enabled=false")
    assert (none.returncode, list(filter(None, yaml.safe_load_all(none.stdout)))) == (0, [])
    wrong = helm("template", "site", str(tmp_path), "--set=learning.logLevl=debug")
    assert "additional properties 'logLevl' not allowed" in wrong.stderr


def test_the_versions_are_those_of_the_chart() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (oldest,) = re.findall(r">=(\d+\.\d+)\.0-0", chart["kubeVersion"])
    assert SERVED[0] == oldest == "1.28"
    assert len(SERVED) >= 9


def kinds(manifests: list[dict[str, Any]]) -> set[str]:
    return {manifest["kind"] for manifest in manifests}


def of(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def test_nothing_of_monitoring_comes_unasked(render: Render) -> None:
    assert not kinds(render()) & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap"}


def test_monitors_find_what_runs(render: Render) -> None:
    manifests = render(**MATRIX["monitored"])
    own, tasks = sorted(of(manifests, "PodMonitor"), key=lambda monitor: len(monitor["metadata"]["name"]))
    (deployment,) = of(manifests, "Deployment")
    assert own["spec"]["selector"] == deployment["spec"]["selector"]
    assert own["spec"]["podMetricsEndpoints"][0]["honorLabels"] is True
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {endpoint["port"] for endpoint in own["spec"]["podMetricsEndpoints"]} == ports
    # What the operator puts on pods of tasks, tests/monitoring compares with what is scraped.
    assert tasks["spec"]["namespaceSelector"] == {"any": True}
    assert [endpoint["port"] for endpoint in tasks["spec"]["podMetricsEndpoints"]] == ["http", "metrics"]
    (narrow,) = (
        m
        for m in of(render(**MATRIX["one namespace, no right on the cluster"]), "PodMonitor")
        if "namespaceSelector" in m["spec"]
    )
    assert narrow["spec"]["namespaceSelector"] == {"matchNames": ["collective"]}


def test_a_service_monitor_takes_the_place_of_the_operators_pod_monitor(render: Render) -> None:
    manifests = render(**EVERYTHING)
    (tasks,) = of(manifests, "PodMonitor")
    assert tasks["metadata"]["name"].endswith("-tasks")
    (monitor,), (service,), (deployment,) = (
        of(manifests, kind) for kind in ("ServiceMonitor", "Service", "Deployment")
    )
    assert service["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert {"release": "p"}.items() <= monitor["metadata"]["labels"].items()


def test_alerts_are_those_of_the_file_with_links_that_work(render: Render) -> None:
    groups = yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
    (plain,) = of(render(**MATRIX["monitored"]), "PrometheusRule")
    for rule in (rule for group in groups for rule in group["rules"]):
        del rule["annotations"]["dashboard_url"]  # nobody has said where Grafana is
    assert plain["spec"]["groups"] == groups
    (linked,) = of(render(**EVERYTHING), "PrometheusRule")
    links = {rule["annotations"]["runbook_url"] for group in linked["spec"]["groups"] for rule in group["rules"]}
    assert links == {
        f"https://example.com/runbooks#{rule['alert'].lower()}" for group in groups for rule in group["rules"]
    }


def test_dashboards_are_what_grafanas_sidecar_looks_for(render: Render) -> None:
    files = {path.name: path.read_text() for path in (CHART / "dashboards").iterdir()}
    plain = of(render(**MATRIX["monitored"]), "ConfigMap")
    found = {name: text for manifest in plain for name, text in manifest["data"].items()}
    assert {name.removeprefix("collective-"): yaml.safe_load(text) for name, text in found.items()} == {
        name: yaml.safe_load(text) for name, text in files.items()
    }
    assert all(manifest["metadata"]["labels"]["grafana_dashboard"] == "1" for manifest in plain)
    for manifest in of(render(**EVERYTHING), "ConfigMap"):
        assert manifest["metadata"]["namespace"] == "monitoring"
        assert manifest["metadata"]["labels"]["dashboards"] == "yes"
        assert manifest["metadata"]["annotations"] == {"grafana_folder": "Machine learning"}


def test_images_by_digest(render: Render) -> None:
    (deployment,) = of(render(**MATRIX["images by digest"]), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"collective-operator@{DIGEST}"
    assert f"--learner-image=collective-learner@{DIGEST}" in container["args"]
    assert f"--coordinator-image=collective-operator@{DIGEST}" in container["args"]


def test_the_pod_is_as_asked(render: Render) -> None:
    (deployment,) = of(render(**EVERYTHING), "Deployment")
    template = deployment["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "radiology"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert pod["priorityClassName"] == "system-cluster-critical"
    (spread,) = pod["topologySpreadConstraints"]
    assert spread == {**EVERYTHING["topologySpreadConstraints"][0], "labelSelector": deployment["spec"]["selector"]}
    assert container["env"] == EVERYTHING["extraEnv"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        told = {"httpGet": {"path": "/healthz", "port": "http"}, **EVERYTHING[probe]}
        assert container[probe] == told
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    (free,) = of(render(**MATRIX["OpenShift"]), "Deployment")
    assert free["spec"]["template"]["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_operators_spread_over_nodes(render: Render) -> None:
    (deployment,) = of(render(), "Deployment")
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["labelSelector"]) == (
        "kubernetes.io/hostname",
        deployment["spec"]["selector"],
    )
    mine = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    (deployment,) = of(render(topologySpreadConstraints=[mine]), "Deployment")
    assert deployment["spec"]["template"]["spec"]["topologySpreadConstraints"] == [mine]


def test_a_label_cannot_take_the_pod_away_from_its_deployment(render: Render) -> None:
    labels = {"podLabels": {"app.kubernetes.io/name": "mine", "app.kubernetes.io/instance": "mine"}}
    (deployment,) = of(render(**labels), "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_people_may_view_and_edit_tasks(render: Render) -> None:
    roles = {role["metadata"]["name"].rpartition("-")[2]: role for role in of(render(), "ClusterRole")}
    viewer, editor = roles["viewer"], roles["editor"]
    aggregated = "rbac.authorization.k8s.io/aggregate-to-"
    assert viewer["metadata"]["labels"][f"{aggregated}view"] == "true"
    assert {label for label in editor["metadata"]["labels"] if label.startswith(aggregated)} == {
        f"{aggregated}edit",
        f"{aggregated}admin",
    }
    (tasks, status) = viewer["rules"]
    assert tasks["verbs"] == ["get", "list", "watch"]
    assert status == editor["rules"][1] and status["verbs"] == ["get"]
    assert "create" in editor["rules"][0]["verbs"]


def test_the_notes_tell_the_next_two_commands(helm: Helm) -> None:
    # Without a cluster; an installation on one, with its notes, is in tests/cluster.
    done = helm("install", "lab", str(CHART), "--dry-run=client", "--namespace=collective")
    notes = done.stdout.partition("NOTES:\n")[2]
    commands = [line.strip() for line in notes.splitlines() if line.startswith("  ")]
    assert len(commands) == 3, notes
    assert commands[0] == "kubectl -n collective rollout status deployment/lab-collective-operator"
    assert commands[1] == "kubectl apply -f examples/digits.yaml && kubectl get ctask --watch"
    assert commands[2].startswith("kubectl delete crd")
