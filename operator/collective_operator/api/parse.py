"""From a manifest to a CollectiveTask, or to every reason why not.

One error at a time is how people lose an afternoon, so all problems are collected, each with the path a person would
write (``spec.learners.count``), the value found, and what is allowed.  The manifest may come from the API server or
from a file that no API server ever saw: the whole of it is checked.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from collective_operator.api import fields, rules
from collective_operator.api.annotations import abort_of, retry_of
from collective_operator.api.task import API_VERSION, KIND, CollectiveTask, CollectiveTaskSpec
from collective_operator.wording import shortened

_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_SHOWN = 83
_LARGEST = 262_144
"""Bytes of a spec as JSON: what `kubectl apply` takes.  An API server takes a megabyte more, which each turn of a task
would read anew, and each of 256 pods could repeat."""
_MOST_PROBLEMS = 100
"""Of rules that are broken: a list of a hundred thousand items may break one with each, and nobody reads them."""
_TEXT = "must be text, and no half of a surrogate pair"
_DEEPEST = 100
"""Lists and mappings in one another; an API server takes ten thousand."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s@]*@")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a task."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class TaskInvalid(ValueError):  # noqa: N818 - what it says of a task, as in `except TaskInvalid`
    """A task that cannot be run as it is written; ``problems`` holds every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


def parse_task(manifest: Mapping[str, Any]) -> CollectiveTask:
    """Read a CollectiveTask.

    Parameters
    ----------
    manifest
        The whole object, from the API server or from a file.

    Raises
    ------
    TaskInvalid
        With all problems found, or a hundred of them.  Rules between fields are looked at once the fields themselves
        are well-formed.
    """
    if not isinstance(manifest, Mapping):
        raise TaskInvalid([_refused("(the file)", manifest, f"must be a mapping with kind: {KIND}")])
    problems = [*_envelope(manifest), *_not_json(manifest.get("spec"), "spec")]
    spec: CollectiveTaskSpec | None = None
    if not problems or all(not problem.path.startswith("spec") for problem in problems):
        text = json.dumps(manifest.get("spec", {}), separators=(",", ":"), ensure_ascii=False).encode()
        try:
            spec = CollectiveTaskSpec.model_validate_json(text)
        except ValidationError as error:
            problems += _shape(error)
        else:
            found = itertools.islice(rules.broken_rules(spec), _MOST_PROBLEMS)
            problems += [_refused(*finding) for finding in found]
        if len(text) > _LARGEST:
            problems.append(
                Problem("spec", f"{len(text):,} bytes of JSON are not allowed: must be at most {_LARGEST:,}")
            )
    if problems or spec is None:
        raise TaskInvalid(problems)
    metadata = manifest["metadata"]
    return CollectiveTask(
        namespace=metadata.get("namespace") or "default",
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        generation=metadata.get("generation") or 1,
        spec=spec,
        abort=abort_of(metadata),
        retry=retry_of(metadata),
    )


def _envelope(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    for field, allowed in (("apiVersion", API_VERSION), ("kind", KIND)):
        if manifest.get(field) != allowed:
            yield _refused(field, manifest.get(field), f"must be {allowed}")
    for field in manifest:
        if field not in _TOP_LEVEL:
            yield Problem(str(field), f"is no field; there are {', '.join(_TOP_LEVEL)}")
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping):
        yield _refused("metadata", metadata, "must be a mapping with a name")
    elif not isinstance(metadata.get("name"), str) or not rules.name_is_valid(metadata["name"]):
        yield _refused("metadata.name", metadata.get("name"), rules.NAME)
    else:
        namespace = metadata.get("namespace")
        if namespace is not None and not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
            yield _refused("metadata.namespace", namespace, "must be an RFC 1123 label")
        for member in ("labels", "annotations"):
            if not isinstance(metadata.get(member, {}), Mapping | None):
                yield _refused(f"metadata.{member}", metadata[member], "must be a mapping")


def _not_json(value: Any, path: str, deep: int = 0) -> Iterator[Problem]:
    """Find what YAML can say and JSON cannot: dates, NaN, keys that are no strings; and what nobody can read."""
    if deep == _DEEPEST:
        yield Problem(shortened(path, _SHOWN), f"must have no more than {_DEEPEST} lists and mappings in one another")
    elif isinstance(value, Mapping):
        for key, member in value.items():
            if not isinstance(key, str):
                yield _refused(path, key, "every key must be a string (quote it)")
            elif not _is_text(key):
                yield _refused(path, key, _TEXT)
            else:
                yield from _not_json(member, f"{path}.{key}", deep + 1)
    elif isinstance(value, list | tuple):
        for position, member in enumerate(value):
            yield from _not_json(member, f"{path}[{position}]", deep + 1)
    elif isinstance(value, int | float) and not _is_finite(value):
        yield _refused(path, value, "must be a finite number")
    elif isinstance(value, str) and not _is_text(value):
        yield _refused(path, value, _TEXT)
    elif not isinstance(value, str | int | float | bool | None):
        yield _refused(path, value, "must be a string, number, boolean, list or mapping (quote it)")


def _is_finite(value: float) -> bool:
    """Tell whether a number is one to who reads JSON as an API server does; YAML can say larger ones."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_text(value: str) -> bool:
    """Tell whether a string can be written: YAML can say half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shape(error: ValidationError) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for detail in error.errors(include_url=False):
        path = "spec"
        # pydantic ends a location with the tag of the union member it tried; a person wrote no such thing.
        for part in detail["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif part not in ("int", "str") and not part.startswith("function-"):
                path += f".{part}"
        if detail["type"] == "missing":
            problem = Problem(path, "is required")
        elif detail["type"] == "extra_forbidden":
            problem = Problem(path, f"is no field; there are {', '.join(_fields_at(detail['loc'][:-1]))}")
        else:
            said = re.sub(r"^(Input|String|Tuple|Dictionary) should", "must", detail["msg"])
            message = fields.QUANTITY if _is_quantity(detail) else said
            problem = _refused(path, detail["input"], message)
        if (problem.path, problem.message) not in seen:
            seen.add((problem.path, problem.message))
            yield problem


def _is_quantity(detail: Any) -> bool:
    """Tell an error of the ``int | str`` union of quantities, which pydantic reports once a member."""
    return detail["type"] in ("int_type", "string_type") and bool(detail["loc"]) and detail["loc"][-1] in ("int", "str")


def _fields_at(location: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = CollectiveTaskSpec
    for part in location:
        if isinstance(part, str):
            field = next(field for field in model.model_fields.values() if field.alias == part)
            model = next(_models_in(field.annotation))
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the models in a type such as ``Annotated[tuple[Site, ...], ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _refused(path: str, value: Any, allowed: str) -> Problem:
    try:
        found = repr(value)
    except ValueError:  # Python writes no number that is as long as that
        found = "a number of thousands of digits"
    text = shortened(_PASSWORD.sub(r"\1...@", found), _SHOWN)  # this goes into status, Events and logs
    return Problem(path, f"{text} is not allowed: {allowed}")
