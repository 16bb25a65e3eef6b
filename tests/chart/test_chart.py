"""The chart: what it renders is valid, restricted, and the repository's own definition; a misspelt value is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CHART, ROOT, Helm, Render
from .matrix import EVERYTHING

CRD = yaml.safe_load((ROOT / "crds" / "collectivetask.yaml").read_text())


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one object of a kind, beside the roles that are for people."""
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    (mine,) = [manifest for manifest in found if not manifest["metadata"]["name"].endswith(("-viewer", "-editor"))]
    return mine


def test_lints(helm: Helm) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_brings_the_definition_of_the_repository(render: Render) -> None:
    rendered = one(render(), "CustomResourceDefinition")
    assert rendered["spec"] == CRD["spec"]
    assert rendered["metadata"]["name"] == CRD["metadata"]["name"]
    # Uninstalling the operator must not remove everyone's tasks.
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_leaves_the_definition_out(render: Render) -> None:
    assert "CustomResourceDefinition" not in {manifest["kind"] for manifest in render("crds.enabled=false")}


def test_packages_with_the_definition_inside(helm: Helm, tmp_path: Path) -> None:
    done = helm("package", str(CHART), f"--destination={tmp_path}")
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as files:
        packed = files.extractfile("collective-operator/files/collectivetask.yaml")
        assert packed is not None
        assert yaml.safe_load(packed.read()) == CRD


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("image.repositry=x", "repositry"),
        ("imag.repository=x", "imag"),
        ("learnerImage.pullPolicy=Always", "pullPolicy"),
        ("resources.limit.memory=1Gi", "limit"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.repository=", "/image/repository"),
        ("crds.enabled=maybe", "/crds/enabled"),
        ("serviceAccount.create=false", "/serviceAccount/name"),
        ("replicas=2", "replicas"),
        ("watchNamespaces={Lab}", "/watchNamespaces/0"),
        ("watchNamespaces={lab,lab}", "/watchNamespaces"),
        ("tls.certificateHours=0", "/tls/certificateHours"),
        ("tls.mode=Off", "mode"),
        ("networkPolicy.metricsFrom[0].pods=x", "pods"),
        ("networkPolicies.enabled=false", "networkPolicies"),
        ("metrics.podMonitor.enable=true", "enable"),
        ("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval"),
        ("metrics.prometheusRule.rules=x", "rules"),
        ("grafana.dashboard.enabled=true", "dashboard"),
        ("image=null", "missing property image"),
        ("image.pullPolicy=null", "/image: missing property pullPolicy"),
        ("replicaCount=null", "missing property replicaCount"),
        ("crds.enabled=null", "/crds: missing property enabled"),
        ("tls.certificateHours=null", "/tls: missing property certificateHours"),
        ("kueue=null", "missing property kueue"),
        ("serviceAccount.create=null", "/serviceAccount: missing property create"),
        ("metrics.podMonitor.interval=null", "/metrics/podMonitor: missing property interval"),
        ("grafana.dashboards.label=null", "/grafana/dashboards: missing property label"),
        ("metrics.podMonitor.interval=30s1m", "/metrics/podMonitor/interval"),
        ("metrics.prometheusRule.runbookUrl=[runbooks]", "/metrics/prometheusRule/runbookUrl"),
        ("livenessProbe.successThreshold=2", "/livenessProbe/successThreshold"),
        ("podAnnotations.a b=c", "podAnnotations"),
        ("networkPolicy.metricsFrom[0].ipBlock.cidr=10.0.0.0/99", "/networkPolicy/metricsFrom/0/ipBlock/cidr"),
        ("extraEnv[0].name=A,extraEnv[0].value=b,extraEnv[0].valueFrom.fieldRef.fieldPath=c", "/extraEnv/0/value"),
        ("extraEnv[0].name=A=B", "/extraEnv/0/name"),
        ("metrics.podMonitor=null", "missing property podMonitor"),
        ("networkPolicy=null", "missing property networkPolicy"),
        ("image.repository=registry.example.com/operator:1.0.0", "/image/repository"),
        ("image.repository=Team/operator", "/image/repository"),
        ("imagePullSecrets[0].name=A_B", "/imagePullSecrets/0/name"),
        ("resources.limits.memory=lots", "/resources/limits/memory"),
        ("resources.requests.cpu=-1", "/resources/requests/cpu"),
        ("priorityClassName=High", "/priorityClassName"),
        ("serviceAccount.name=Mine", "/serviceAccount/name"),
        ("podLabels.a b=c", "podLabels"),
        ("podLabels.a=b c", "/podLabels/a"),
        ("nodeSelector.gpu=yes please", "/nodeSelector/gpu"),
        ("grafana.dashboards.label=a b", "/grafana/dashboards/label"),
        ("networkPolicy.metricsFrom[0].ipBlock.cidr=10.0.0.0", "/networkPolicy/metricsFrom/0/ipBlock/cidr"),
        ("networkPolicy.metricsFrom[0].ipBlock.cidrs=10.0.0.0/8", "cidrs"),
        ("networkPolicy.metricsFrom[0].podSelector.labels.a=b", "labels"),
        ("topologySpreadConstraints[0].maxSkw=1", "maxSkw"),
        ("topologySpreadConstraints[0].whenUnsatisfiable=Never", "/topologySpreadConstraints/0/whenUnsatisfiable"),
        ("affinity.podAntiAffinity.required=x", "required"),
        ("affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].wait=1", "wait"),
        ("extraEnv[0].name=A,extraEnv[0].valueFrom.secretKey.name=x", "secretKey"),
        ("replicaCount=11", "/replicaCount"),
        ("fullnameOverride=" + "a" * 253, "/fullnameOverride"),
        ("grafana.url=grafana.example.com", "/grafana/url"),
        ("grafana.url=javascript:alert", "/grafana/url"),
        ("image.digest=latest", "/image/digest"),
        ("rbac.aggregateRoles=yes", "/rbac/aggregateRoles"),
        ("logLevel=verbose", "/logLevel"),
        ("tolerations[0].effekt=NoSchedule", "effekt"),
        ("affinity.nodeAfinity.x=y", "nodeAfinity"),
        ("livenessProbe.period=3", "period"),
        ("podSecurityContext.privileged=true", "privileged"),
    ],
)
def test_refuses_a_wrong_value(helm: Helm, value: str, told: str) -> None:
    done = helm("template", "lab", str(CHART), f"--set={value}")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("- ")]
    assert told in line.replace("'", "").replace(".", "/") or told in line


def test_operator_meets_the_restricted_profile(render: Render) -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in pod["volumes"])


def test_of_two_operators_one_acts(render: Render) -> None:
    manifests = render()
    spec = one(manifests, "Deployment")["spec"]
    assert (spec["replicas"], spec.get("strategy")) == (2, None)
    (container,) = spec["template"]["spec"]["containers"]
    (lease,) = [word.partition("=")[2] for word in container["args"] if word.startswith("--lease-name=")]
    assert "--leader-election" in container["args"]
    rules = {tuple(rule["verbs"]): rule.get("resourceNames") for rule in one(manifests, "Role")["rules"]}
    assert rules == {("create",): None, ("get", "update"): [lease]}
    assert one(manifests, "PodDisruptionBudget")["spec"]["selector"] == spec["selector"]


def test_without_a_lease_one_operator_is_gone_before_the_next_comes(helm: Helm, render: Render) -> None:
    manifests = render("leaderElection.enabled=false", "replicaCount=1")
    spec = one(manifests, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert "--leader-election" not in spec["template"]["spec"]["containers"][0]["args"]
    assert {"Role", "PodDisruptionBudget"}.isdisjoint(manifest["kind"] for manifest in manifests)
    done = helm("template", "lab", str(CHART), "--set=leaderElection.enabled=false")
    assert done.returncode != 0
    assert "replicaCount: 2 operators need leaderElection.enabled" in done.stderr


@pytest.mark.parametrize("monitor", ["podMonitor", "serviceMonitor"])
@pytest.mark.parametrize(("timeout", "fits"), [("15s", True), ("15001ms", False), ("1m", False), ("0h15s", True)])
def test_a_scrape_may_not_take_longer_than_until_the_next(helm: Helm, monitor: str, timeout: str, fits: bool) -> None:
    values = f"metrics.{monitor}.enabled=true,metrics.{monitor}.interval=15s,metrics.{monitor}.scrapeTimeout={timeout}"
    done = helm("template", "lab", str(CHART), f"--set={values}")
    assert (done.returncode == 0) == fits, done.stderr
    if fits:
        assert f"interval: 15s\n      scrapeTimeout: {timeout}\n" in done.stdout
    else:
        assert f"metrics.{monitor}.scrapeTimeout: {timeout} is longer than its interval, 15s" in done.stderr


def test_images_are_the_values(render: Render) -> None:
    (container,) = one(render(**EVERYTHING), "Deployment")["spec"]["template"]["spec"]["containers"]
    operator = "registry.example.com:5000/collective/operator:1.2.3"
    assert container["image"] == operator
    assert f"--coordinator-image={operator}" in container["args"]
    assert "--learner-image=registry.example.com:5000/collective/learner:gpu" in container["args"]
    assert container["imagePullPolicy"] == "Always"
    assert "--image-pull-policy=Always" in container["args"]


def test_images_default_to_the_charts_version(render: Render) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    (container,) = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"collective-operator:{version}"
    assert f"--learner-image=collective-learner:{version}" in container["args"]


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"networkPolicy": {"enabled": False}}])
def test_operator_understands_its_arguments(render: Render, values: dict[str, Any]) -> None:
    """Every option that the chart passes is one that the command has, with a value that it takes."""
    (container,) = one(render(**values), "Deployment")["spec"]["template"]["spec"]["containers"]
    refused = "--log-level=unheard-of"  # so that it does not begin to serve
    command = [sys.executable, "-m", "collective_operator", *container["command"][1:], *container["args"], refused]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 2
    assert "Invalid value for '--log-level'" in told.stderr


def test_who_may_speak_with_pods_is_told_to_the_operator(render: Render) -> None:
    def arguments(**values: Any) -> dict[str, str]:
        (container,) = one(render(**values), "Deployment")["spec"]["template"]["spec"]["containers"]
        return dict(argument.partition("=")[::2] for argument in container["args"])

    given = arguments()
    (operator,) = json.loads(given["--operator-from"])
    deployment = one(render(), "Deployment")
    assert operator["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "collective"}}
    assert operator["podSelector"] == deployment["spec"]["selector"]
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert json.loads(given["--metrics-from"]) == monitoring
    policy = one(render(), "NetworkPolicy")["spec"]
    assert policy["podSelector"] == deployment["spec"]["selector"]
    assert policy["ingress"] == [{"from": monitoring, "ports": [{"protocol": "TCP", "port": "http"}]}]
    nobody = {"networkPolicy": {"metricsFrom": []}}
    assert one(render(**nobody), "NetworkPolicy")["spec"]["ingress"] == []
    assert arguments(**nobody)["--metrics-from"] == "[]"
    off = {"networkPolicy": {"enabled": False}}
    assert "--no-network-policies" in arguments(**off)
    assert "NetworkPolicy" not in {manifest["kind"] for manifest in render(**off)}


def test_grafana_is_told_to_the_operator_and_to_the_alerts(render: Render) -> None:
    def told(*values: str) -> tuple[list[str], set[str]]:
        manifests = render("metrics.prometheusRule.enabled=true", *values)
        (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        rules = [rule for group in one(manifests, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
        arguments = [argument for argument in container["args"] if argument.startswith("--grafana-url")]
        return arguments, {rule["annotations"].get("dashboard_url", "").partition("?")[0] for rule in rules}

    assert told() == ([], {""})
    assert told("grafana.url=https://grafana.example.com/sub/") == (
        ["--grafana-url=https://grafana.example.com/sub/"],
        {f"https://grafana.example.com/sub/d/collective-{board}" for board in ("platform", "task")},
    )


def rights(rules: list[dict[str, Any]]) -> set[str]:
    return {f"{verb} {resource}" for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def test_may_do_no_more_than_it_does(render: Render) -> None:
    """That it uses every right, and asks for none that it lacks, tests/cluster/test_rights.py finds out."""
    allowed = rights(one(render(), "ClusterRole")["rules"])
    assert not [right for right in allowed if "*" in right or "deletecollection" in right or "exec" in right]
    assert {right for right in allowed if "secrets" in right} == {"get secrets", "create secrets", "update secrets"}
    off = rights(one(render(**{"networkPolicy": {"enabled": False}}), "ClusterRole")["rules"])
    assert not [right for right in off if "networkpolicies" in right]


def test_an_operator_begins_anew_with_the_right_to_let_pods_go(render: Render) -> None:
    """What a running one was refused for tasks that have ended, or are gone, it does not try again."""
    without, given = (one(render(kueue={"enabled": on}), "Deployment")["spec"]["template"] for on in (False, True))
    assert without["spec"] == given["spec"]
    assert without != given


def test_named_namespaces_take_no_right_on_the_cluster(render: Render) -> None:
    manifests = render(**{"watchNamespaces": ["lab-a", "lab-b"], "crds": {"enabled": False}})
    assert not [manifest for manifest in manifests if manifest["kind"].startswith(("Cluster", "Custom"))]
    tasks = [manifest for manifest in manifests if not manifest["metadata"]["name"].endswith("-lease")]
    roles = [manifest for manifest in tasks if manifest["kind"] == "Role"]
    bindings = [manifest for manifest in tasks if manifest["kind"] == "RoleBinding"]
    assert [role["metadata"]["namespace"] for role in roles] == ["lab-a", "lab-b"]
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["lab-a", "lab-b"]
    (subject,) = {json.dumps(binding["subjects"]) for binding in bindings}
    assert json.loads(subject) == [
        {"kind": "ServiceAccount", "name": "lab-collective-operator", "namespace": "collective"}
    ]
    cluster_wide = {right for right in rights(one(render(), "ClusterRole")["rules"]) if "definitions" not in right}
    assert all(rights(role["rules"]) == cluster_wide for role in roles)
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"--namespace=lab-a", "--namespace=lab-b"} <= set(container["args"])


def test_rights_go_to_the_account_the_operator_runs_as(render: Render) -> None:
    values = {"serviceAccount": {"create": False, "name": "mine"}}
    manifests = render(**values)
    (subject,) = one(manifests, "ClusterRoleBinding")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "mine", "namespace": "collective"}
    assert one(manifests, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_version_is_the_distributions() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == installed("collective-operator")


def test_every_value_has_its_place_in_the_readme() -> None:
    """That the table is current, tests/monitoring says of all that is generated."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    table = (CHART / "README.md").read_text()
    described = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    tops = {path.partition(".")[0] for path in described}
    assert tops == set(schema["properties"]) - {"global", "enabled"}  # Helm's own, and a parent chart's condition


def test_every_object_of_the_schema_is_closed() -> None:
    """So that a misspelt value is an error, however deep it stands."""

    def opened(found: object, path: str) -> list[str]:
        if isinstance(found, list):
            return [place for index, item in enumerate(found) for place in opened(item, f"{path}[{index}]")]
        if not isinstance(found, dict):
            return []
        is_open = found.get("type") == "object" and found.get("additionalProperties", True) is True
        here = [path] if is_open else []
        return here + [place for name, item in found.items() for place in opened(item, f"{path}.{name}")]

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert opened(schema, "") == [".properties.global"], "Helm's own alone"
