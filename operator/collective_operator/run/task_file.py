"""Reads a task file as strictly as the API server would, with errors that a person can act on.

YAML takes the last of two equal keys without a word; then half of what somebody wrote is gone. Here that is refused,
as `kubectl` does, with the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collective_operator.api import CollectiveTask, TaskInvalid, parse_task
from collective_operator.run.refusal import RefusedError

_MOST_VALUES = 1_000_000
"""What etcd takes of an object is far less."""
_DEEPEST = 120
"""Lists and mappings in one another; a spec may have a hundred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """One valid task, and the manifest it came from."""

    path: Path
    manifest: dict[str, Any]
    task: CollectiveTask


class _Loader(yaml.SafeLoader):
    """Plain data only, not too deep, no key twice, and ``1e-3`` is a number, as it is to `kubectl`."""

    _deep = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse what stands too deep before it is read to its end."""
        if parent and self._deep > _DEEPEST:
            problem = "lists and mappings stand too deep in one another"
            raise yaml.composer.ComposerError(None, None, problem, parent.start_mark)
        self._deep += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._deep -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Say where a value is not of the kind that it says it is, such as a date that no calendar has."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, IndexError, AttributeError) as error:
            problem = f"{node.value!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            problem = None
            if not isinstance(key, Hashable):
                problem = f"the key {key!r} is no text"
            elif key in seen:
                problem = f"the key {key!r} stands here for the second time"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_task_file(path: Path) -> TaskFile:
    """Read and validate a file with one CollectiveTask.

    Raises
    ------
    RefusedError
        With every problem; each names the file, and the line and column or the path of the field.
    """
    manifest = _only_document(path)
    try:
        task = parse_task(manifest)
    except TaskInvalid as invalid:
        raise RefusedError([f"{path}: {problem}" for problem in invalid.problems]) from invalid
    return TaskFile(path=path, manifest=manifest, task=task)


def _expanded(value: Any, known: dict[int, float]) -> float:
    """Count the values that there are once every alias stands for what it names; a loop of them is without end."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # until it is counted: who meets it meanwhile is inside of it
        within = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded(each, known) for each in within)
    return known[id(value)]


def _only_document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RefusedError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RefusedError([f"{path}: is no text in UTF-8: {error.reason} at byte {error.start}"]) from error
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise RefusedError([f"{where}: is no valid YAML: {said}"]) from error
    except yaml.YAMLError as error:
        raise RefusedError([f"{path}: is no valid YAML: {error}"]) from error
    for document in documents:
        if _expanded(document, {}) > _MOST_VALUES:
            raise RefusedError([f"{path}: aliases make more than {_MOST_VALUES:,} values of it, or hold themselves"])
    if len(documents) != 1:
        found = f"holds {len(documents)} documents" if documents else "is empty"
        raise RefusedError([f"{path}: {found}, expected exactly one CollectiveTask"])
    document = documents[0]
    if not isinstance(document, dict):
        raise RefusedError([f"{path}: holds a {type(document).__name__}, expected a mapping with kind: CollectiveTask"])
    return document
