"""The project on a real cluster: its own images, installed by Helm, in namespaces that enforce the restricted profile.

The cluster is the one that KUBECONFIG names; `make e2e` builds the images, brings them there and opts in. What a test
leaves is removed at the end, also when it fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kube import Namespace, run

ROOT = Path(__file__).parents[2]
CRD = "collectivetasks.collectivelearning.dev"
RELEASE = "collective"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    enabled = os.environ.get("COLLECTIVE_E2E") == "1" and os.environ.get("KUBECONFIG")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(1200))
            if not enabled:
                item.add_marker(pytest.mark.skip("needs a cluster: `KUBECONFIG=... make e2e` runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    namespaces = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Namespace)]
    if report.failed and call.when in {"setup", "call"}:
        report.sections += [(f"namespace {one.name}", one.describe()) for one in namespaces]
    return report


def image(variable: str, default: str) -> tuple[str, str]:
    """Split an image's name into repository and tag."""
    repository, _, tag = os.environ.get(variable, default).rpartition(":")
    return repository, tag


def restricted(name: str) -> Namespace:
    """Make a namespace anew that refuses pods outside of the restricted profile."""
    remove(name)
    run("kubectl", "create", "namespace", name)
    run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return Namespace(name)


def remove(name: str) -> None:
    run("kubectl", "delete", "namespace", name, "--ignore-not-found", "--timeout=300s", seconds=330)


@pytest.fixture(scope="session")
def lab() -> Iterator[Namespace]:
    """Where tasks run."""
    namespace = restricted("collective-e2e")
    yield namespace
    remove(namespace.name)


@pytest.fixture(scope="session")
def system(lab: Namespace) -> Iterator[Namespace]:
    """Where the operator runs, installed by its chart."""
    # A definition that somebody applied stays theirs; one that a broken-off run left behind is ours to take over.
    name = "collective-e2e-system"
    found = run("kubectl", "get", "crd", CRD, "--ignore-not-found", "-o", "yaml")
    had_definition = bool(found) and f"meta.helm.sh/release-namespace: {name}" not in found
    namespace = restricted(name)
    helm = ("helm", "--namespace", namespace.name)
    operator, learner = (
        image("COLLECTIVE_OPERATOR_IMAGE", "collective-operator:dev"),
        image("COLLECTIVE_LEARNER_IMAGE", "collective-learner:dev"),
    )
    run(
        *helm, "install", RELEASE, str(ROOT / "helm" / "collective-operator"), "--wait", "--timeout=300s",
        f"--set=image.repository={operator[0]},image.tag={operator[1]}",
        f"--set=learnerImage.repository={learner[0]},learnerImage.tag={learner[1]}",
        f"--set=crds.enabled={str(not had_definition).lower()}",
        seconds=330,
    )  # fmt: skip
    yield namespace
    # Tasks go first: their children are theirs to remove, and the definition outlives the release by intent.
    lab.kubectl("delete", "ctask", "--all", "--timeout=180s", check=False, seconds=210)
    run(*helm, "uninstall", RELEASE, "--wait", "--timeout=180s", seconds=210)
    remove(namespace.name)
    if not had_definition:
        run("kubectl", "delete", "crd", CRD, "--ignore-not-found", "--timeout=180s", seconds=210)
