"""Renders the chart with the real Helm, so that what is tested is what a cluster gets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "collective-operator"
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., list[dict[str, Any]]]


def find_helm() -> str | None:
    places = os.pathsep.join(filter(None, [os.environ.get("PATH"), os.environ.get("KUBEBUILDER_ASSETS")]))
    return shutil.which("helm", path=places)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    binary = find_helm()
    if binary is None:
        how = "helm is neither on PATH nor in KUBEBUILDER_ASSETS: install it to test the chart"
        pytest.fail(how) if os.environ.get("CI") == "true" else pytest.skip(how)
    home = tmp_path_factory.mktemp("helm")
    # Helm must find neither the user's plugins nor a cluster.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments], capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT, check=False
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """What a release makes of values given as keyword-less ``key=value`` strings."""

    def manifests(*values: str, **json_values: Any) -> list[dict[str, Any]]:
        arguments = [f"--set={value}" for value in values]
        arguments += [f"--set-json={name}={json.dumps(value)}" for name, value in json_values.items()]
        done = helm("template", "lab", str(CHART), "--namespace=collective", *arguments)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return manifests
