"""The CRD and the models say the same: fields, what is required, bounds, enums, defaults; and the CRD is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from collective_operator.api import GROUP, KIND, PLURAL, VERSION, CollectiveTaskSpec, fields, rules

PATH = Path(__file__).parents[2] / "crds" / "collectivetask.yaml"
CRD = yaml.safe_load(PATH.read_text())
(SERVED,) = CRD["spec"]["versions"]
SCHEMA = SERVED["schema"]["openAPIV3Schema"]
KEYWORDS = (
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "maxItems",
    "maxProperties",
    "enum",
    "default",
)


def from_models() -> dict[str, dict[str, Any]]:
    """Flatten the models' schema: path -> what it says."""
    schema = CollectiveTaskSpec.model_json_schema(by_alias=True)
    flat: dict[str, dict[str, Any]] = {}

    def walk(node: dict[str, Any], path: str) -> None:
        node = {**schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], **node} if "$ref" in node else node
        variants = [variant for variant in node.get("anyOf", ()) if variant != {"type": "null"}]
        if len(variants) == 1:
            rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
            return walk({**variants[0], **rest}, path)
        if variants:
            flat[path] = {"type": "int-or-string", **({"default": node["default"]} if "default" in node else {})}
            return None
        said = {key: node[key] for key in KEYWORDS if key in node}
        if "exclusiveMinimum" in said:
            # A number in JSON Schema, a flag beside the minimum in OpenAPI 3.0.
            said |= {"minimum": said["exclusiveMinimum"], "exclusiveMinimum": True}
        if "const" in node:
            said["enum"] = [node["const"]]
        flat[path] = said | {"type": node["type"], "required": set(node.get("required", ()))}
        for name, member in node.get("properties", {}).items():
            walk(member, f"{path}.{name}")
        if isinstance(node.get("additionalProperties"), dict):
            walk(node["additionalProperties"], f"{path}[]")
        if "items" in node:
            walk(node["items"], f"{path}[]")
        return None

    walk(schema, "spec")
    return flat


def from_crd() -> dict[str, dict[str, Any]]:
    """Flatten the CRD's schema the same way."""
    flat: dict[str, dict[str, Any]] = {}

    def walk(node: dict[str, Any], path: str) -> None:
        if node.get("x-kubernetes-int-or-string"):
            assert (node["pattern"], node["maxLength"]) == (fields.QUANTITY_PATTERN, 32), path
            flat[path] = {"type": "int-or-string", **({"default": node["default"]} if "default" in node else {})}
            return
        said = {key: node[key] for key in KEYWORDS if key in node}
        # Kubernetes fills nested defaults in only where the object itself has one; pydantic needs no such line.
        if said.get("default") == {} or said.get("default") == []:
            del said["default"]
        if "type" not in node:
            # A word that YAML takes for a boolean where it is not quoted: the schema admits both, the models read one.
            *said["enum"], last = said["enum"]
            assert (last, said["enum"][-1]) == (False, "Off"), path
        flat[path] = said | {"type": node.get("type", "string"), "required": set(node.get("required", ()))}
        for name, member in node.get("properties", {}).items():
            walk(member, f"{path}.{name}")
        for inner in ("items", "additionalProperties"):
            if isinstance(node.get(inner), dict):
                walk(node[inner], f"{path}[]")

    walk(SCHEMA["properties"]["spec"], "spec")
    return flat


def plain(said: dict[str, Any]) -> dict[str, Any]:
    """Drop what only one side can write: pydantic's empty defaults, which stand for objects and lists."""
    return {key: value for key, value in said.items() if not (key == "default" and value in ({}, [], None, ()))}


def test_the_same_fields() -> None:
    assert from_models().keys() == from_crd().keys()


@pytest.mark.parametrize("path", sorted(from_crd()))
def test_the_same_said_of(path: str) -> None:
    assert plain(from_models()[path]) == from_crd()[path]


def test_names() -> None:
    names = CRD["spec"]["names"]
    assert (CRD["spec"]["group"], SERVED["name"], names["kind"], names["plural"]) == (GROUP, VERSION, KIND, PLURAL)
    assert CRD["metadata"]["name"] == f"{PLURAL}.{GROUP}"
    assert (names["shortNames"], names["categories"]) == (["ctask"], ["collective"])


def messages(*path: str) -> list[str]:
    """The messages of the rules on a part of the spec, but for those on changes."""
    node = SCHEMA
    for name in path:
        node = node["properties"][name]
    return [rule["message"] for rule in node["x-kubernetes-validations"] if "oldSelf" not in rule["rule"]]


def test_rules_have_the_words_of_the_models() -> None:
    assert (messages(), messages("spec")) == ([rules.NAME], [rules.QUORUM])
    assert messages("spec", "learners") == [rules.COUNT_OR_SITES]
    members = [message for _, message in rules.STRATEGY_MEMBERS.values()]
    assert messages("spec", "strategy") == [*members, rules.AGGREGATION, rules.TRIMMED_MEAN, rules.GATE]
    assert messages("spec", "stop") == [rules.STOP, rules.MIN_DELTA]
    assert str(rules.NAME_LIMIT) in SCHEMA["x-kubernetes-validations"][0]["rule"]
    assert rules.NAME_PATTERN in SCHEMA["x-kubernetes-validations"][0]["rule"]


def test_columns() -> None:
    columns = [(column["name"].upper(), column.get("priority", 0)) for column in SERVED["additionalPrinterColumns"]]
    assert columns == [
        ("PHASE", 0),
        ("ROUND", 0),
        ("READY", 0),
        ("SCORE", 0),
        ("AGE", 0),
        ("STRATEGY", 1),
        ("ACCEPTED", 1),
        ("PROPOSER", 1),
        ("REASON", 1),
    ]


def test_small_enough_to_apply() -> None:
    assert PATH.stat().st_size < 60_000


def test_everything_is_bounded() -> None:
    unbounded: list[str] = []

    def walk(node: dict[str, Any], path: str) -> None:
        bounded = {"maxLength", "enum"} & node.keys() or node.get("format") == "date-time"
        if node.get("type") == "string" and not bounded:
            unbounded.append(path)
        if node.get("type") == "array" and "maxItems" not in node:
            unbounded.append(path)
        free = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
        if node.get("type") == "object" and free and "maxProperties" not in node:
            unbounded.append(path)
        if path.startswith("spec") and node.get("type") in ("integer", "number"):
            assert {"minimum", "maximum"} <= node.keys(), path
        for name, member in node.get("properties", {}).items():
            walk(member, f"{path}.{name}")
        for inner in ("items", "additionalProperties"):
            if isinstance(node.get(inner), dict):
                walk(node[inner], f"{path}[]")

    for part in ("spec", "status"):
        walk(SCHEMA["properties"][part], part)
    assert unbounded == []
