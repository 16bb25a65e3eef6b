"""One control plane and one operator for all tests here; a namespace for each."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .control_plane import HOW_TO, ControlPlane, control_plane, eventually, find_binaries
from .playground import Coordinator, Namespace, Operator
from .rights import chart_rights, find_helm, install_rights

CRD = Path(__file__).parents[2] / "crds" / "collectivetask.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW_TO)
        pytest.skip(HOW_TO)
    with control_plane(binaries, tmp_path_factory.mktemp("control-plane")) as started:
        started.kubectl("apply", "-f", str(CRD))
        wait = ("wait", "--for=condition=Established", "--timeout=30s", "crd/collectivetasks.collectivelearning.dev")
        # `kubectl wait` gives up at once on a definition that has no conditions yet.
        eventually(lambda: started.kubectl(*wait, check=False).returncode == 0, what="the definition")
        yield started


@contextmanager
def new_namespace(plane: ControlPlane) -> Iterator[Namespace]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    eventually(lambda: plane.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), what="the default account")
    made = Namespace(plane, name)
    yield made
    plane.request("DELETE", made.tasks)


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[Namespace]:
    with new_namespace(plane) as made:
        yield made


@pytest.fixture
def other_namespace(plane: ControlPlane) -> Iterator[Namespace]:
    with new_namespace(plane) as made:
        yield made


@pytest.fixture(scope="session")
def account(plane: ControlPlane) -> str | None:
    """Whom the operator logs in as: the chart's own account; None, the administrator, where there is no helm."""
    helm = find_helm()
    return install_rights(plane, chart_rights(helm, "collective")) if helm else None


@pytest.fixture(scope="session")
def shared_operator(
    plane: ControlPlane, account: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    kubeconfig = plane.kubeconfig_of(account, folder / "kubeconfig") if account else None
    operator = Operator(plane, folder, kubeconfig=kubeconfig)
    operator.start()
    try:
        yield operator
    finally:
        operator.stop()


@pytest.fixture
def operator(shared_operator: Operator) -> Operator:
    """The operator, alive whatever an earlier test did to it."""
    if shared_operator.process.poll() is not None:
        shared_operator.start()
    return shared_operator


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    with Coordinator(uid="").serving() as serving:
        yield serving
