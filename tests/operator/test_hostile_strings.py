"""Whatever a task says, none of it becomes a command, a label, a name or a path of a pod.

What people write freely ends in one of three places: the coordinator's configuration, which is JSON; a field that
Kubernetes itself reads (an image, a quantity, a StorageClass); an argument `--import=MODULE`, whose words are checked.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_operator.api import TaskInvalid, parse_task
from collective_operator.desired import desired_children
from collective_operator.log_lines import OneLine

from .specs import SCHEMA
from .world import PLATFORM, manifest

Manifest = dict[str, Any]

LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
MARK = "zz"
KEY = "(key)"
NASTY = [
    "$(rm -rf /)",
    "`id`",
    "; reboot",
    "../../etc/passwd",
    "--tls-ca=/tmp/x",
    "\n- evil",
    "a b",
    "{{.}}",
    "\x00",
    "é" * 20,
]
nasty = st.one_of(st.sampled_from(NASTY), st.text(min_size=1, max_size=40)).map(lambda text: f"{MARK}{text}{MARK}")


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every string, keys included, and where it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, "(key)"), str(key)
            yield from walk(value, (*path, key))
    elif isinstance(node, list):
        for value in node:
            yield from walk(value, path)
    elif isinstance(node, str):
        yield path, node


def built(task: Manifest) -> list[Manifest]:
    return [child.build() for child in desired_children(parse_task(task), PLATFORM)]


@settings(max_examples=60)
@given(nasty, nasty, nasty, nasty, nasty)
def test_free_text_ends_where_nobody_runs_it(
    model: str, loader: str, location: str, image: str, parameter: str
) -> None:
    task = manifest(
        model={"name": model[:128], "parameters": {parameter: parameter}},
        dataLoader={"name": loader[:128]},
        learners={"count": 2, "location": location, "image": image},
        coordinator={"storage": {"storageClassName": image}},
    )
    for child in built(task):
        for path, text in walk(child):
            if MARK not in text:
                continue
            where = ".".join(path)
            if where == "data.coordinator.json":
                assert json.loads(text)["model"]["parameters"] == {parameter: parameter}
            else:
                assert where in ("spec.containers.image", "spec.storageClassName"), where
        assert all(map(LABEL.fullmatch, child["metadata"]["labels"].values()))
        assert NAME.fullmatch(child["metadata"]["name"])
        for container in child["spec"].get("containers", ()) if child["kind"] == "Pod" else ():
            assert container["command"][:2] == ["python", "-m"], "no shell"
            assert not [argument for argument in container["args"] if ".." in argument or "\n" in argument]


def strings(schema: Manifest, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where a schema has a string that is not one of a few, and where people choose a member's name."""
    if "enum" not in schema and (schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema):
        yield path
    for name, member in schema.get("properties", {}).items():
        yield from strings(member, (*path, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield (*path, KEY)
        yield from strings(schema["additionalProperties"], (*path, "member"))
    if "items" in schema:
        yield from strings(schema["items"], (*path, 0))


def told(path: tuple[Any, ...], text: str) -> Manifest:
    """A task that says a text at a place."""
    spec: Any = manifest()["spec"] | {"learners": {"sites": [{"name": "a"}]} if "sites" in path else {"count": 1}}
    here, *rest = spec, *path
    for member, following in itertools.pairwise(rest):
        if isinstance(here, list):
            here.extend([] if here else [{}])
            here = here[0]
        else:
            here = here.setdefault(member, [] if following == 0 else {})
        if following == "resource":
            here["count"] = 1
    last = rest[-1]
    if last == 0:
        here.append(text)
    else:
        here[text if last == KEY else last] = "1" if last == KEY else text
    return manifest(**spec)


TAKEN = {
    "ConfigMap.data.coordinator.json",
    "PersistentVolumeClaim.spec.storageClassName",
    "Pod.spec.containers.image",
    # Names that Kubernetes judges, and says so.
    "Pod.spec.containers.resources.requests.(key)",
    "Pod.spec.containers.resources.limits.(key)",
    # What the user says in a pod's own words.
    "Pod.metadata.annotations.member",
}


@pytest.mark.parametrize("path", list(strings(SCHEMA["spec"])), ids=lambda path: ".".join(map(str, path)))
def test_every_string_of_a_spec_is_refused_or_ends_where_nobody_runs_it(path: tuple[Any, ...]) -> None:
    for nasty_one in [*NASTY, "\x1b[2J", "%s%n", "\u202e"]:
        task = told(path, f"{MARK}{nasty_one}{MARK}")
        try:
            children = built(task)
        except TaskInvalid as invalid:
            assert all(problem.path.startswith(f"spec.{path[0]}") for problem in invalid.problems)
            continue
        found = {
            f"{child['kind']}.{'.'.join(where)}" for child in children for where, text in walk(child) if MARK in text
        }
        assert found and found <= TAKEN, (nasty_one, found - TAKEN)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "name"), "a/b"),
        (("metadata", "name"), "a\n"),
        (("metadata", "name"), "..") ,
        (("spec", "learners", "imports"), ["os; reboot"]),
        (("spec", "learners", "imports"), ["a\n"]),
        (("spec", "learners", "imports"), ["../x"]),
        (("spec", "learners", "imports"), ["--code=/"]),
        (("spec", "learners", "codeFrom"), {"configMapRef": {"name": "../x"}}),
        (("spec", "learners", "codeFrom"), {"configMapRef": {"name": "a/b"}}),
        (("spec", "learners", "codeFrom"), {"configMapRef": {"name": "x\n"}}),
        (("spec", "learners", "gpus"), {"count": 1, "resource": "a b"}),
        (("spec", "learners", "gpus"), {"count": 1, "resource": "a\n"}),
        (("spec", "learners", "resources"), {"limits": {"memory": "1Gi; x"}}),
        (("spec", "learners", "resources"), {"limits": {"memory": "1Gi\n"}}),
        (("spec", "learners"), {"sites": [{"name": "a/b"}]}),
        (("spec", "learners"), {"sites": [{"name": "a\n"}]}),
        (("spec", "learners"), {"sites": [{"name": "a" * 64}]}),
        (("spec", "learners", "podOverrides"), {"metadata": {"labels": {"collectivelearning.dev/tls": "x"}}}),
        (("spec", "learners", "podOverrides"), {"metadata": {"labels": {"app.kubernetes.io/component": "x"}}}),
        (("spec", "queueName"), "a b"),
        (("spec", "queueName"), "a\n"),
        (("spec", "tls"), {"mode": "Off\n"}),
    ],
)  # fmt: skip
def test_words_that_become_arguments_names_or_labels_are_checked(path: tuple[str, ...], value: Any) -> None:
    task = manifest()
    here = task
    for member in path[:-1]:
        here = here[member]
    here[path[-1]] = value
    with pytest.raises(TaskInvalid) as refused:
        parse_task(task)
    assert any(".".join(path) in problem.path for problem in refused.value.problems)


def test_no_string_makes_a_line_of_the_log() -> None:
    formatter = OneLine("%(levelname)s %(message)s")
    error = "refused:\n2026-01-01 INFO all is well\r\x1b[2K\x00\u2028é"
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "%s; again", (error,), None)
    told = formatter.format(record)
    assert told == "WARNING refused:\\n2026-01-01 INFO all is well\\r\\x1b[2K\\x00\\u2028é; again"
    assert told.splitlines() == [told]
