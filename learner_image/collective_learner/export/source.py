"""A run's folder, or a task's file with a model beside it: which model, on which data, with which weights.

The learner's side reads what it needs of a task by itself: it does not know the operator, whose rules a task has passed
when it ran.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collective_learner.export.errors import NotThereError
from collective_learner.wire.digest import digest_of, name_of

TASK = "task.json"
MODEL, OPAQUE, BEST = "model.safetensors", "model.bin", "best-model.safetensors"
_LOCATION = "{index}/{count}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """The model or the data loader that a task names."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a model is rebuilt from.

    Parameters
    ----------
    task
        The file that tells the task.
    folder
        Where the model lies, and exports go.
    weights
        The file with the weights; it is there.
    model, data_loader
        What the task names.
    seed
        The task's.
    location
        That of the task's first learner.
    imports
        The modules that register model and data loader.
    config_map
        The name of the ConfigMap that holds them, if any.
    """

    task: Path
    folder: Path
    weights: Path
    model: Part
    data_loader: Part
    seed: int
    location: str
    imports: tuple[str, ...]
    config_map: str | None

    @functools.cached_property
    def content(self) -> bytes:
        """The weights' bytes, read once: a run that goes on replaces the file."""
        try:
            return self.weights.read_bytes()
        except OSError as error:
            raise NotThereError(f"{self.weights}: cannot be read: {error.strerror}") from error

    def digest(self) -> str:
        """Name the weights by their content, to know whether an export is of them."""
        return name_of(digest_of([self.content]))


def source_of(run: Path, *, best: bool = False, weights: Path | None = None) -> Source:
    """Find what a run, or a task, has.

    Parameters
    ----------
    run
        A folder that `collective run` made, or a task's file in YAML or JSON.
    best
        Take the best model instead of the last.
    weights
        A file with the weights, from elsewhere.

    Raises
    ------
    NotThereError
        It is neither, or has no model yet; the message says what is missing.
    """
    task = run / TASK if run.is_dir() else run
    if not task.is_file():
        raise NotThereError(
            f"{run}: holds no {TASK}; the folder of a `collective run`, or a task's file, is needed"
            if run.is_dir()
            else f"{run}: is not there; the folder of a `collective run`, or a task's file, is needed"
        )
    spec = _spec_of(task)
    folder = task.parent
    learners = _object(task, spec, "learners", needed=False)
    count = learners.get("count", 1)
    code = _object(task, learners, "codeFrom", needed=False)
    return Source(
        task=task,
        folder=folder,
        weights=_weights_in(folder, best=best) if weights is None else _there(weights),
        model=_part(task, spec, "model"),
        data_loader=_part(task, spec, "dataLoader"),
        seed=spec.get("seed") or 0,
        location=str(learners.get("location") or _LOCATION).replace("{index}", "0").replace("{count}", str(count)),
        imports=tuple(learners.get("imports") or ()),
        config_map=_object(task, code, "configMapRef", needed=False).get("name"),
    )


def _weights_in(folder: Path, *, best: bool) -> Path:
    path = folder / (BEST if best else MODEL)
    if path.is_file():
        return path
    if (folder / OPAQUE).is_file():
        raise NotThereError(
            f"{folder / OPAQUE}: the learners' own format, from an original colearn peer; not exportable"
        )
    raise NotThereError(
        f"{folder}: holds no {path.name}; no round has been accepted yet, or it lies elsewhere (--weights)"
    )


def _there(path: Path) -> Path:
    if not path.is_file():
        raise NotThereError(f"{path}: is not there; a file with weights in safetensors is needed")
    return path


def _spec_of(task: Path) -> Mapping[str, Any]:
    try:
        text = task.read_text(encoding="utf-8")
        found = json.loads(text) if task.suffix == ".json" else _from_yaml(task, text)
    except (OSError, ValueError) as error:
        if isinstance(error, NotThereError):
            raise
        raise NotThereError(f"{task}: cannot be read as a task: {error}") from error
    whole = found.get("task", found) if isinstance(found, dict) else found
    if not isinstance(whole, dict):
        raise NotThereError(f"{task}: holds a {type(whole).__name__}; a CollectiveTask is needed")
    return _object(task, whole, "spec")


def _from_yaml(task: Path, text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - a run's folder does not need it
    except ModuleNotFoundError as missing:
        raise NotThereError(
            f"{task}: YAML needs PyYAML, which is not installed: pip install 'collective-operator[task]'"
        ) from missing
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise NotThereError(f"{task}: is no valid YAML: {' '.join(str(error).split())}") from error


def _object(task: Path, parent: Mapping[str, Any], key: str, *, needed: bool = True) -> Mapping[str, Any]:
    found = parent.get(key)
    if isinstance(found, dict):
        return found
    if found is None and not needed:
        return {}
    raise NotThereError(f"{task}: {key}: {json.dumps(found, default=str)}, an object is needed")


def _part(task: Path, spec: Mapping[str, Any], key: str) -> Part:
    found = _object(task, spec, key)
    name = found.get("name")
    if not isinstance(name, str):
        raise NotThereError(f"{task}: spec.{key}.name: {json.dumps(name, default=str)}, a name is needed")
    return Part(name=name, parameters=_object(task, found, "parameters", needed=False))
