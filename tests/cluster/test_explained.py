"""What kubectl knows of tasks by itself: an explanation of every field, a short name and a category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .control_plane import ControlPlane, eventually
from .playground import Namespace, manifest

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "collectivetask.yaml").read_text())


def test_kubectl_explains_every_field(plane: ControlPlane) -> None:
    missing: list[str] = []

    def walk(schema: dict[str, Any], path: str) -> None:
        if "description" not in schema and path not in ("ctask.metadata",):
            missing.append(path)
        for name, member in schema.get("properties", {}).items():
            walk(member, f"{path}.{name}")
        for inner in ("items", "additionalProperties"):
            if isinstance(schema.get(inner), dict):
                walk(schema[inner], f"{path}[]")

    root = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    walk(root, "ctask")
    assert missing == []
    explained = eventually(lambda: plane.kubectl("explain", "ctask", "--recursive", check=False).stdout)
    for name in ("minLearners", "storageClassName", "learnerStatuses", "testScore"):
        assert name in explained
    learners = " ".join(plane.kubectl("explain", "ctask.spec.learners").stdout.split())
    assert root["properties"]["spec"]["properties"]["learners"]["description"].split(".")[0] in learners


def test_short_name_and_category(namespace: Namespace) -> None:
    namespace.apply(manifest())
    get = namespace.plane.kubectl
    listing = ("-n", namespace.name, "get", "collective", "-o", "name")
    eventually(lambda: "collectivetask" in get(*listing, check=False).stdout)
    assert "collectivetask" not in get("-n", namespace.name, "get", "all", "-o", "name").stdout
