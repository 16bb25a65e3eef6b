"""The chart: what it renders is valid, restricted, and the repository's own definition; a misspelt value is refused."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from .conftest import CHART, ROOT, Helm, Render

CRD = yaml.safe_load((ROOT / "crds" / "collectivetask.yaml").read_text())

EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example.com:5000/collective/operator", "tag": "1.2.3", "pullPolicy": "Always"},
    "learnerImage": {"repository": "registry.example.com:5000/collective/learner", "tag": "gpu"},
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"create": False, "name": "mine"},
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    "podAnnotations": {"example.com/owner": "lab"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    },
}


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def test_lints(helm: Helm) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_renders_what_kubernetes_takes(render: Render, values: dict[str, Any], version: str) -> None:
    manifests = render(**values)
    for manifest in manifests:
        if manifest["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(manifest, version, strict=True)
    kinds = [
        *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Deployment", "PodDisruptionBudget"),
        *("Role", "RoleBinding", "ServiceAccount"),
    ]
    assert sorted(manifest["kind"] for manifest in manifests) == [
        kind for kind in kinds if kind != "ServiceAccount" or values is not EVERYTHING
    ]


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
    ],
)
def test_refuses_a_wrong_value(helm: Helm, value: str, told: str) -> None:
    done = helm("template", "lab", str(CHART), f"--set={value}")
    assert done.returncode != 0
    assert told in done.stderr.replace("'", "").replace(".", "/") or told in done.stderr


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


def test_operator_understands_its_arguments(render: Render) -> None:
    """Every option that the chart passes is one that the command has."""
    (container,) = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    command = [sys.executable, "-m", "collective_operator", *container["command"][1:], "--help"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for argument in container["args"]:
        assert argument.partition("=")[0] in told.stdout


def test_may_do_no_more_than_it_does(render: Render) -> None:
    rules = one(render(), "ClusterRole")["rules"]
    allowed = {f"{verb} {resource}" for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    assert not [right for right in allowed if "*" in right or "secrets" in right or "deletecollection" in right]
    assert {"delete collectivetasks", "list events", "watch persistentvolumeclaims"} <= allowed
    assert {
        "update collectivetasks",
        "patch collectivetasks",
        "create pods/exec",
        "update pods",
        "update services",
    }.isdisjoint(allowed)


def test_rights_go_to_the_account_the_operator_runs_as(render: Render) -> None:
    manifests = render(**EVERYTHING)
    (subject,) = one(manifests, "ClusterRoleBinding")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "mine", "namespace": "collective"}
    assert one(manifests, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_version_is_the_distributions() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == installed("collective-operator")
