"""docs/task.md: every field of a CollectiveTask, from the CRD, where `kubectl explain` has it from.

An object has a section of its own, and a row for each member; what the rules (CEL) refuse stands below the object's
table, in the words that the API server uses. Objects that have the same members several times, such as the GPUs of all
learners and those of a site, are told once, where they come up least deep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_HEAD = """\
# The fields of a task

`{group}/{version}`, kind `{kind}`, short name `{short}`. This page is made from
[`crds/collectivetask.yaml`](../crds/collectivetask.yaml) by `make generate`; a cluster says the same:

```sh
kubectl explain ctask.spec.strategy
kubectl explain ctask.status --recursive
```

A field that is not here is refused, by a cluster, by `collective check` and by `collective run`. So is a value that
breaks a rule: below each table are the rules' own words. [Concepts](concepts.md) tells what the words mean, and
[`examples/`](../examples) has whole tasks.

{description}

{rules}"""
_STATUS = (
    "What the operator writes, and nobody else. [Conditions](conditions.md) explains the conditions and their reasons."
)
_COLUMNS = """\
## What kubectl get prints

| column | from | what |
|---|---|---|
"""

Schema = Mapping[str, Any]


class UndescribedError(Exception):
    """A field has no description."""


def reference(crd: Path) -> str:
    """Write the page.

    Raises
    ------
    UndescribedError
        A field has no description.
    """
    definition = yaml.safe_load(crd.read_text())["spec"]
    (version,) = definition["versions"]
    root = version["schema"]["openAPIV3Schema"]
    names = definition["names"]
    head = _HEAD.format(
        group=definition["group"],
        version=version["name"],
        kind=names["kind"],
        short=names["shortNames"][0],
        description=_prose(root["description"]),
        rules=_rules(root, "metadata and spec"),
    )
    told: dict[str, str] = {}
    for path, schema in _objects("spec", root["properties"]["spec"], breadth_first=True):
        told.setdefault(_shape(schema), path)
    parts = [head]
    for top in ("spec", "status"):
        for path, schema in _objects(top, root["properties"][top]):
            if told.get(_shape(schema), path) == path:
                parts.append(_section(path, schema, told))
    return "\n".join([*parts, _COLUMNS + "".join(_column(column) for column in version["additionalPrinterColumns"])])


def _objects(path: str, schema: Schema, *, breadth_first: bool = False) -> Iterator[tuple[str, Schema]]:
    """Walk everything that has members: as it is read, or the least deep first."""
    waiting = [(path, schema)]
    while waiting:
        here, found = waiting.pop(0)
        if "properties" in found:
            yield here, found
        inner = [(f"{here}.{name}", member) for name, member in found.get("properties", {}).items()]
        inner += [(f"{here}[]", found["items"])] if "items" in found else []
        waiting = [*waiting, *inner] if breadth_first else [*inner, *waiting]


def _shape(schema: Schema) -> str:
    """Say what an object's members are and may be, without the words about them."""

    def bare(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: bare(member) for name, member in found.items() if name not in ("description", "default")}
        return found

    members = {name: bare(member) for name, member in schema["properties"].items()}
    return json.dumps([members, schema.get("required"), schema.get("x-kubernetes-validations")], sort_keys=True)


def _section(path: str, schema: Schema, told: Mapping[str, str]) -> str:
    level = "##" if "." not in path else "###"
    about = _STATUS if path == "status" else _prose(_described(path, schema))
    rows = "".join(_row(f"{path}.{name}", name, member, schema, told) for name, member in schema["properties"].items())
    text = f"{level} {path}\n\n{about}\n\n| field | type | default | what |\n|---|---|---|---|\n{rows}"
    rules = _rules(schema, path)
    return text + (f"\n{rules}" if rules else "")


def _rules(schema: Schema, path: str) -> str:
    """List what rules refuse: the object's own, and those of members that have no section."""
    members = [member for member in schema["properties"].values() if "properties" not in member]
    found = [rule for part in (schema, *members) for rule in part.get("x-kubernetes-validations", ())]
    return f"Rules of {path}:\n\n" + "".join(f"- {_prose(rule['message'])}\n" for rule in found) if found else ""


def _row(path: str, name: str, schema: Schema, parent: Schema, told: Mapping[str, str]) -> str:
    default = f"`{json.dumps(schema['default'])}`" if schema.get("default") not in (None, {}) else ""
    if name in parent.get("required", ()) and not path.startswith("status"):
        default = "**required**"
    what, label = _described(path, schema), f"`{name}`"
    inner = schema.get("items", schema)
    if "properties" in inner:
        here = path + ("[]" if "items" in schema else "")
        where = told.get(_shape(inner), here)
        label = f"[{label}](#{anchor(where)})"
        what = what if where != here or "items" in schema else _first(what)
    return f"| {label} | {_type(schema)} | {default} | {_prose(what)} |\n"


def _first(text: str) -> str:
    """Give the first sentence, and the next one where that says next to nothing: the section has all of it."""
    end = text.find(". ", 40)
    return text if end < 0 else text[: end + 1]


def _described(path: str, schema: Schema) -> str:
    if not schema.get("description"):
        raise UndescribedError(f"crds/collectivetask.yaml: {path} has no description")
    return " ".join(str(schema["description"]).split())


def anchor(heading: str) -> str:
    """Give what GitHub makes of a heading for links to it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _type(schema: Schema) -> str:
    """Say what a value may be, in few words."""
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity, such as `500m` or `1Gi`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if isinstance(value, str))
    kind = str(schema["type"])
    if kind == "array":
        return f"list{_count(schema, 'Items', 'entries')}: {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map{_count(schema, 'Properties', 'entries')}: {_type(schema['additionalProperties'])}"
    if kind == "string":
        shape = f", as `{schema['pattern']}`".replace("|", "\\|") if "pattern" in schema else ""
        kind = "time" if schema.get("format") == "date-time" else kind
        return kind + _count(schema, "Length", "characters") + shape
    return kind + _range(schema)


def _count(schema: Schema, what: str, unit: str) -> str:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    if most is None:
        return ""
    return f", {least} to {most:,} {unit}" if least else f", up to {most:,} {unit}"


def _range(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None and most is None:
        return ""
    begin = f"above {least:,}" if schema.get("exclusiveMinimum") else f"{least:,}"
    return f", {begin} to {most:,}"


def _column(column: Schema) -> str:
    what = _prose(column.get("description", "Since it was created."))
    wide = " With `-o wide`." if column.get("priority") else ""
    return f"| {column['name'].upper()} | `{column['jsonPath'].removeprefix('.')}` | {what}{wide} |\n"


def _prose(text: str) -> str:
    """Keep what stands in angle brackets from being taken for HTML, and a bar for the end of a cell."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
        for part in parts
    )
