"""Helm and a real API server: it takes whatever values make, and a task outlives every change of the operator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..chart.matrix import MATRIX
from .control_plane import ControlPlane, eventually
from .playground import Coordinator, Namespace, Operator
from .rights import CHART, HOW_TO, find_helm
from .test_life import start

Helm = Callable[..., str]
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/collectivetasks.collectivelearning.dev"
OURS = "monitoring.coreos.com/"


@pytest.fixture(scope="module")
def helm(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    binary = find_helm()
    if binary is None:
        pytest.fail(HOW_TO) if os.environ.get("CI") == "true" else pytest.skip(HOW_TO)
    home = tmp_path_factory.mktemp("helm")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(plane.kubeconfig)}

    def run(*arguments: str) -> str:
        command = [str(binary), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def places(plane: ControlPlane) -> list[str]:
    """Namespaces that values of the matrix name."""
    names = ["collective", "lab-a", "lab-b", "monitoring", "123", "true"]
    for name in names:
        if not plane.get(f"/api/v1/namespaces/{name}"):
            plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return names


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_the_api_server_takes_it(plane: ControlPlane, helm: Helm, places: list[str], values: dict[str, Any]) -> None:
    told = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    text = helm("template", "lab", str(CHART), f"--namespace={places[0]}", *told)
    manifests = [found for found in yaml.safe_load_all(text) if found and not found["apiVersion"].startswith(OURS)]
    every = {"apiVersion": "v1", "kind": "List", "items": manifests}
    done = plane.kubectl("apply", "--dry-run=server", "-f", "-", stdin=every)
    lines = [line for line in done.stdout.splitlines() if line.endswith("(server dry run)")]
    assert len(lines) == len(manifests)
    assert "Warning" not in done.stderr


def description(plane: ControlPlane) -> str:
    return str(plane.get(CRD)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].get("description"))


@pytest.fixture
def previous(plane: ControlPlane, tmp_path: Path) -> Iterator[Path]:
    """The chart as an older version of it, with another definition; what is here now is there again afterwards."""
    chart = tmp_path / "collective-operator"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.1", "appVersion": "0.0.1"}))
    definition = yaml.safe_load((chart / "files" / "collectivetask.yaml").read_text())
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "As it was."
    (chart / "files" / "collectivetask.yaml").write_text(yaml.safe_dump(definition))
    yield chart
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "files" / "collectivetask.yaml"))


def test_a_task_outlives_upgrade_rollback_and_uninstallation(
    plane: ControlPlane,
    helm: Helm,
    namespace: Namespace,
    operator: Operator,
    coordinator: Coordinator,
    previous: Path,
) -> None:
    uid = start(namespace, coordinator)
    coordinator.say(phase="Running", learners=[{"name": "learner-0", "state": "Ready"}])
    eventually(lambda: namespace.status()["phase"] == "Running")
    pods = {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()}
    now = description(plane)

    def image() -> str | None:
        found = plane.get(f"/apis/apps/v1/namespaces/{namespace.name}/deployments/mine-collective-operator")
        return found["spec"]["template"]["spec"]["containers"][0]["image"] if found else None

    def goes_on() -> None:
        assert namespace.task()["metadata"]["uid"] == uid
        assert namespace.status()["phase"] == "Running"
        assert {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()} == pods

    release = ("mine", f"--namespace={namespace.name}")
    # The definition of this control plane came without Helm.
    notes = helm("install", *release, str(previous), "--take-ownership", "--force-conflicts")
    assert f"kubectl -n {namespace.name} rollout status deployment/mine-collective-operator" in notes
    assert (image(), description(plane)) == ("collective-operator:0.0.1", "As it was.")
    goes_on()
    helm("upgrade", *release, str(CHART))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert (image(), description(plane)) == (f"collective-operator:{version}", now)
    goes_on()
    helm("rollback", *release)
    assert (image(), description(plane)) == ("collective-operator:0.0.1", "As it was.")
    goes_on()
    helm("upgrade", *release, str(CHART), "--set=logLevel=debug")
    kept = helm("uninstall", *release)
    assert "collectivetasks.collectivelearning.dev" in kept
    eventually(lambda: image() is None, what="the operator is gone")
    assert description(plane) == now
    goes_on()
    # What was kept is the old release's; another one has to say that it takes it.
    other = ("theirs", f"--namespace={namespace.name}")
    with pytest.raises(AssertionError, match="cannot be imported into the current release"):
        helm("install", *other, str(CHART))
    helm("install", *other, str(CHART), "--take-ownership")
    goes_on()
    helm("uninstall", *other)
