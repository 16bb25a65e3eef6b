"""docs/task.md has every field of the definition; that it is current, tests/monitoring says of all that is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm.generate.reference import UndescribedError, reference

from .pages import ROOT, headings

CRD = ROOT / "crds" / "collectivetask.yaml"
TEXT = (ROOT / "docs" / "task.md").read_text()
(VERSION,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
ROWS = [line for line in TEXT.splitlines() if line.startswith(("| `", "| [`"))]


def members(schema: Any) -> Iterator[tuple[str, Any]]:
    """Every member at any depth, with its name."""
    for name, member in schema.get("properties", {}).items():
        yield name, member
        yield from members(member)
    if "items" in schema:
        yield from members(schema["items"])


def row(name: str, schema: Any) -> bool:
    """Whether some row tells of such a member: its name, its default, and how its description begins."""
    default = f"| `{json.dumps(schema['default'])}` |" if schema.get("default") not in (None, {}) else "|"
    begin = " ".join(schema["description"].split())[:30].replace("<", "&lt;")
    return any(line.startswith((f"| `{name}`", f"| [`{name}`]")) and default in line and begin in line for line in ROWS)


def shape(name: str, schema: Any) -> str:
    """What a member is, without words: members of one shape, such as the GPUs of all and of a site, are told once."""
    bare = {key: value for key, value in schema.items() if key not in ("description", "properties", "items")}
    return json.dumps([name, bare], sort_keys=True)


def test_every_field_is_told_with_its_default() -> None:
    found = [*members(SCHEMA["properties"]["spec"]), *members(SCHEMA["properties"]["status"])]
    told = {shape(name, member) for name, member in found if row(name, member)}
    assert len(found) > 150
    assert [name for name, member in found if shape(name, member) not in told] == []


def test_every_value_that_is_allowed_is_told() -> None:
    for _, member in members(SCHEMA):
        for value in member.get("enum", ()):
            assert f"`{value}`" in TEXT or value is False


def test_every_rule_is_told_in_its_own_words() -> None:
    def rules(schema: Any) -> Iterator[str]:
        yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
        for member in schema.get("properties", {}).values():
            yield from rules(member)
        if "items" in schema:
            yield from rules(schema["items"])

    told = " ".join(TEXT.split())
    found = list(rules(SCHEMA))
    assert len(found) > 30
    assert [message for message in found if f"- {' '.join(message.split())}" not in told] == []


def test_every_column_is_told() -> None:
    for column in VERSION["additionalPrinterColumns"]:
        assert f"| {column['name'].upper()} | `{column['jsonPath'].removeprefix('.')}` |" in TEXT


def test_sections_are_in_the_order_of_the_definition() -> None:
    tops = [heading for heading in headings("docs/task.md") if heading.startswith("spec.") and heading.count(".") == 1]
    order = [
        f"spec.{name}" for name, member in SCHEMA["properties"]["spec"]["properties"].items() if "properties" in member
    ]
    assert tops == order


def test_a_field_without_a_description_is_refused_by_its_path(tmp_path: Path) -> None:
    definition = yaml.safe_load(CRD.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["stop"]["properties"]["patience"]["description"]
    (tmp_path / "crd.yaml").write_text(yaml.safe_dump(definition))
    with pytest.raises(UndescribedError, match=r"spec\.stop\.patience"):
        reference(tmp_path / "crd.yaml")
