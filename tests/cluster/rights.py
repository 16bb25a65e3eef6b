"""The operator's rights in these tests: those that the chart gives it, and no others.

So every test here is one of the chart's rights, too: a request that they do not cover fails, as it would in a cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .control_plane import ControlPlane, eventually

CHART = Path(__file__).parents[2] / "helm" / "collective-operator"
SYSTEM = "collective-system"
HOW_TO = "helm is neither on PATH nor in KUBEBUILDER_ASSETS: install it to try the operator with the chart's rights"


def find_helm() -> str | None:
    places = os.pathsep.join(filter(None, [os.environ.get("PATH"), os.environ.get("KUBEBUILDER_ASSETS")]))
    return shutil.which("helm", path=places)


def chart_rights(helm: str, release: str, **values: Any) -> list[dict[str, Any]]:
    """Render what the chart makes of an account and its rights."""
    command = [helm, "template", release, str(CHART), f"--namespace={SYSTEM}"]
    command += [f"--show-only=templates/{name}.yaml" for name in ("rbac", "serviceaccount")]
    command += [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def install_rights(plane: ControlPlane, manifests: list[dict[str, Any]]) -> str:
    """Apply them, and name the account, NAMESPACE:NAME."""
    if not plane.get(f"/api/v1/namespaces/{SYSTEM}"):
        plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM}})
        eventually(lambda: plane.get(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/default"), what="the namespace")
    plane.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": manifests})
    (account,) = [manifest for manifest in manifests if manifest["kind"] == "ServiceAccount"]
    return f"{SYSTEM}:{account['metadata']['name']}"


def forbidden(requests: list[dict[str, Any]]) -> list[str]:
    """Tell what was refused for want of a right."""
    return [
        f"{request['verb']} {request['requestURI']}"
        for request in requests
        if request.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
    ]


def rights_of(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Take rules apart: verb, group, resource."""
    return {
        (verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def used(requests: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Tell which rights requests have made use of."""
    return {
        (
            request["verb"],
            reference.get("apiGroup", ""),
            "/".join(filter(None, [reference["resource"], reference.get("subresource")])),
        )
        for request in requests
        if (reference := request.get("objectRef")) and "resource" in reference
    }
