"""Reads a task file as strictly as the API server would, with errors that a person can act on.

YAML takes the last of two equal keys without a word; then half of what somebody wrote is gone. Here that is refused,
as `kubectl` does, with the line.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collective_operator.api import CollectiveTask, TaskInvalid, parse_task
from collective_operator.run.refusal import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """One valid task, and the manifest it came from."""

    path: Path
    manifest: dict[str, Any]
    task: CollectiveTask


class _Loader(yaml.SafeLoader):
    """Plain data only, no key twice, and ``1e-3`` is a number, as it is to `kubectl`."""

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
    if len(documents) != 1:
        found = f"holds {len(documents)} documents" if documents else "is empty"
        raise RefusedError([f"{path}: {found}, expected exactly one CollectiveTask"])
    document = documents[0]
    if not isinstance(document, dict):
        raise RefusedError([f"{path}: holds a {type(document).__name__}, expected a mapping with kind: CollectiveTask"])
    return document
