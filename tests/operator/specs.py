"""Tasks that nobody thought of: drawn from the definition's own schema, and then broken."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import assume
from hypothesis import strategies as st

from collective_operator.api import TaskInvalid, parse_task
from collective_operator.reasons import Reason, Type

Manifest = dict[str, Any]

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "collectivetask.yaml").read_text())
SCHEMA: Manifest = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]

texts = st.text(max_size=12)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["1Gi", "{index}", "Off"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
"""Whatever JSON or YAML can hold."""

LEARNERS = 4
"""The most that a task has here: one of 256 is like one of 4, and slower."""

_items = st.lists(
    st.fixed_dictionaries({"name": texts}, optional={"mountPath": texts, "value": anything}) | anything, max_size=2
)
_containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["learner", "coordinator", "sidecar"])},
        optional=dict.fromkeys(("env", "volumeMounts", "volumeDevices", "securityContext"), _items | anything),
    ),
    max_size=2,
)
_POD_MEMBERS = {
    **dict.fromkeys(("containers", "initContainers"), _containers | _items | anything),
    **dict.fromkeys(("volumes", "imagePullSecrets", "schedulingGates"), _items | anything),
    **dict.fromkeys(("securityContext", "affinity", "tolerations", "nodeName"), anything),
}


@st.composite
def pod_specs(draw: st.DrawFn) -> Manifest:
    """A member or two of a PodSpec: what the operator lays over its own, and what it only passes on."""
    chosen = draw(st.lists(st.sampled_from(sorted(_POD_MEMBERS)), max_size=2, unique=True))
    return {member: draw(_POD_MEMBERS[member]) for member in chosen}


strange_pod_specs = st.fixed_dictionaries({"new": st.fixed_dictionaries({"env": _items})})
"""No member of a PodSpec, in which a list that is merged elsewhere may hold anything."""

METADATA = {"name": "digits", "namespace": "default", "uid": "task-uid", "generation": 1}


def drawn_from(schema: Manifest) -> st.SearchStrategy[Any]:
    """Draw what a schema admits; of what is unbounded, little."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(0, 10**9) | st.from_regex(schema["pattern"], fullmatch=True).filter(
            lambda text: len(text) < 33
        )
    match schema["type"]:
        case "object":
            return _objects(schema)
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            return st.lists(drawn_from(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
        case "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31))
        case "number":
            least = schema.get("minimum")
            return st.floats(least, schema.get("maximum"), exclude_min=schema.get("exclusiveMinimum", False),
                             allow_nan=False, allow_infinity=False)  # fmt: skip
        case "boolean":
            return st.booleans()
        case "string":
            return _strings(schema)
    raise AssertionError(f"no such type: {schema}")


TIMES = (
    *("2025-12-31T23:59:00Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
    # An API server takes these for times, too.
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "2026-01-01t00:00:00.123456789z"),
)


def _strings(schema: Manifest) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from(TIMES)
    least, most = schema.get("minLength", 0), schema.get("maxLength", 20)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: least <= len(text) <= most)
    return st.text(min_size=least, max_size=max(least, min(most, 12)))


def _objects(schema: Manifest) -> st.SearchStrategy[Manifest]:
    if schema.get("description") == "Members of a PodSpec.":
        return pod_specs()
    if "properties" not in schema:
        inner = schema.get("additionalProperties")
        values = drawn_from(inner) if isinstance(inner, dict) else anything
        return st.dictionaries(texts, values, max_size=min(schema.get("maxProperties", 2), 2))
    required = schema.get("required", ())
    members = {name: drawn_from(member) for name, member in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: members[name] for name in required},
        optional={name: member for name, member in members.items() if name not in required},
    )


def task_of(spec: Any, status: Any = None) -> Manifest:
    """A task as the API server would hold it."""
    return {
        "apiVersion": "collectivelearning.dev/v1alpha1",
        "kind": "CollectiveTask",
        "metadata": dict(METADATA),
        "spec": spec,
        **({} if status is None else {"status": status}),
    }


def _mended(spec: Manifest) -> Manifest:
    """Take out of a spec what is complained of: rules between fields are not in the schema."""
    learners = spec["learners"]
    if "count" in learners:
        learners["count"] = min(learners["count"], LEARNERS)
        learners.pop("sites", None)
    elif not learners.get("sites"):
        learners |= {"count": 2}
    for _ in range(6):
        try:
            parse_task(task_of(spec))
        except TaskInvalid as invalid:
            for problem in invalid.problems:
                *path, last = re.findall(r"[^.\[\]]+", problem.path)[1:4]
                here = spec
                for key in path:
                    here = here.get(key, {}) if isinstance(here, dict) else {}
                if isinstance(here, dict):
                    here.pop(last, None)
                if not learners.keys() & {"count", "sites"}:
                    learners["count"] = 1
        else:
            return spec
    assume(False)
    raise AssertionError


_conditions = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from([*map(str, Type), "Newer"]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": st.sampled_from([*map(str, Reason), "Newer"]),
            "message": texts,
            "lastTransitionTime": st.sampled_from(["2025-12-31T23:59:00Z", "2026-01-02T00:00:00Z"]),
        }
    ),
    unique_by=lambda condition: condition["type"],
)

any_spec = drawn_from(SCHEMA["spec"])
"""What the schema admits; most of it breaks a rule."""
valid_spec = any_spec.map(_mended)
statuses = st.builds(
    lambda status, conditions: {**status, "conditions": conditions}, drawn_from(SCHEMA["status"]), _conditions
)
"""What the schema admits: written by an operator of any version, or by hand."""


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from _places(value, (*path, key))


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> Any:
    """Draw something, and put anything in some of its places, or nothing."""
    made = copy.deepcopy(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(made))
        if not places:
            return draw(anything)
        *path, last = draw(st.sampled_from(places))
        here = made
        for key in path:
            here = here[key]
        if draw(st.booleans()):
            here[last] = draw(anything)
        else:
            del here[last]
    return made


def examples(count: int) -> int:
    """How many examples a property is tried with: so many, or COLLECTIVE_FUZZ times as many."""
    return count * int(os.environ.get("COLLECTIVE_FUZZ", "1"))
