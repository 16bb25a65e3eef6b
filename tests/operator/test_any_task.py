"""Any task at all: it is read or refused in words, what is made of it is well-formed, and nothing else ever happens."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_operator import conditions
from collective_operator.api import TaskInvalid, parse_task
from collective_operator.api.task import is_managed_elsewhere
from collective_operator.cluster.protocol import TaskKey
from collective_operator.desired import desired_children
from collective_operator.desired.credentials import credentials
from collective_operator.metrics import TaskBook
from collective_operator.reasons import Type

from .specs import (
    any_spec,
    anything,
    broken,
    examples,
    pod_specs,
    statuses,
    strange_pod_specs,
    task_of,
    valid_spec,
)
from .world import PLATFORM, World, manifest


def read(task: Any) -> bool:
    """Read a task, or hear why not."""
    try:
        parse_task(task)
    except TaskInvalid as invalid:
        assert invalid.problems
        assert all(problem.message for problem in invalid.problems)
        assert str(invalid)
        return False
    return True


@settings(max_examples=examples(40))
@given(any_spec.map(task_of), broken(valid_spec.map(task_of)), anything)
def test_it_is_read_or_refused_in_words(valid: Any, mutated: Any, whatever: Any) -> None:
    for task in (valid, mutated, whatever):
        read(task)
        if isinstance(task, dict):
            is_managed_elsewhere({"metadata": {}, **task})


@settings(max_examples=examples(20))
@given(valid_spec)
def test_what_is_made_of_it_is_well_formed(spec: Any) -> None:
    parsed = parse_task(task_of(spec))
    names = []
    for child in desired_children(parsed, PLATFORM):
        made = child.build()
        json.dumps(made, allow_nan=False)
        yaml.safe_dump(made)
        assert (made["kind"], made["metadata"]["name"]) == (child.kind, child.name)
        assert made["metadata"]["ownerReferences"][0]["uid"] == "task-uid"
        names.append((child.kind, child.name))
    assert len(names) == len(set(names))
    pods = {name for kind, name in names if kind == "Pod"}
    assert {credential.pod for credential in credentials(parsed, PLATFORM)} in (set(), pods)


@settings(max_examples=examples(60))
@given(pod_specs() | strange_pod_specs, pod_specs() | strange_pod_specs)
def test_overrides_are_laid_over_one_another_or_refused_in_words(learners: Any, site: Any) -> None:
    said = {"podOverrides": {"spec": learners}, "sites": [{"name": "a", "podOverrides": {"spec": site}}]}
    task = manifest(learners=said)
    if read(task):
        for child in desired_children(parse_task(task), PLATFORM):
            json.dumps(child.build())


@settings(max_examples=examples(40))
@given(valid_spec | broken(valid_spec), statuses, st.lists(st.integers(-90_000, 90_000), max_size=3))
def test_a_look_at_it_never_fails_whatever_its_status_says(spec: Any, status: Any, clock: list[int]) -> None:
    world, book = World(), TaskBook()
    world.task = task_of(spec, status)
    for seconds in (0, *clock):
        world.look(seconds)
        if world.deleted:
            return
        book.note(TaskKey("default", "digits"), world.task)
        list(book.collect())


@settings(max_examples=examples(40))
@given(statuses, st.booleans(), st.sampled_from([None, "Pending", "Running", "Failed"]))
def test_it_comes_to_its_end_whatever_its_status_said(status: Any, suspend: bool, phase: str | None) -> None:
    world = World(policy={"preRunningDeadlineSeconds": 300}, suspend=suspend)
    world.task["status"] = status
    for _ in range(12):
        world.look(400)
        for pod in world.pods.values() if phase else ():
            pod["status"] = {"phase": phase}
    ends = (Type.COMPLETE, Type.FAILED, *([Type.SUSPENDED] if suspend else []))
    assert any(conditions.is_true(world.status, end) for end in ends), world.status
    assert world.look(10_000).status is None
