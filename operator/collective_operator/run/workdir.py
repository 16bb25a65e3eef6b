"""The folder of one run: whose it is, who works in it now, and what it has come to.

A run that goes on must be the same task, or its checkpoint would be continued as something it is not; so the task is
kept beside it, with the uid it was given, and compared field by field. One process at a time: a lock that the system
drops when its holder dies, however that happens.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collective_operator.api import CollectiveTaskSpec
from collective_operator.run.refusal import RefusedError
from collective_operator.run.task_file import TaskFile

TASK = "task.json"
RESULT = "result.json"
ROUNDS = "rounds.jsonl"
PLOT = "rounds.png"
LOGS = "logs"
_LOCK = ".run.lock"


class Workdir:
    """An opened folder, locked until closed.

    Parameters
    ----------
    path
        The folder; made if it is not there.
    file
        The task to run in it.

    Raises
    ------
    RefusedError
        The folder is another task's, or nobody's run at all, or another process works in it.
    """

    def __init__(self, path: Path, file: TaskFile) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            known = (path / TASK).exists()
            if not known and any(entry.name != _LOCK for entry in path.iterdir()):
                raise RefusedError([f"{path}: holds files that are no run's; choose a new or an empty folder"])
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RefusedError([f"{path}: cannot be used as a folder: {error.strerror}"]) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise RefusedError([f"{path}: another `collective run` works in this folder"]) from error
        try:
            self.uid = self._recognise(file) if known else self._begin(file)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlock the folder."""
        os.close(self._lock)

    def manifest(self, file: TaskFile) -> dict[str, Any]:
        """Return the task as an API server would have it: with identity and generation.

        Never suspended: nobody is here to resume it but who has just started it.
        """
        identity = {"namespace": file.task.namespace, "uid": self.uid, "generation": 1}
        return {
            **file.manifest,
            "metadata": {**file.manifest["metadata"], **identity},
            "spec": {**file.manifest["spec"], "suspend": False},
        }

    def result(self) -> dict[str, Any] | None:
        """Read how the run ended; None when it has not."""
        try:
            result: dict[str, Any] = json.loads((self.path / RESULT).read_text())
        except FileNotFoundError:
            return None
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """Write how the run ended: whole or not at all."""
        write_whole(self.path / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")

    def _begin(self, file: TaskFile) -> str:
        uid = str(uuid.uuid4())
        kept = {"version": 1, "uid": uid, "task": _normal(file)}
        write_whole(self.path / TASK, json.dumps(kept, indent=2, allow_nan=False) + "\n")
        return uid

    def _recognise(self, file: TaskFile) -> str:
        path = self.path / TASK
        try:
            kept = json.loads(path.read_text())
            uid, before = kept["uid"], _filled(kept["task"])
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError([f"{path}: is damaged ({error}); choose a new folder"]) from error
        differences = list(_differences(before, _normal(file), ""))
        if differences:
            raise RefusedError([
                f"{self.path}: belongs to a task that differs from {file.path}; choose another folder for this one",
                *(f"  {difference}" for difference in differences),
            ])  # fmt: skip
        return str(uid)


def default_workdir(name: str) -> Path:
    """Choose a folder that is not there yet: ``runs/<name>-<time>``."""
    base = Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def _normal(file: TaskFile) -> dict[str, Any]:
    """Return what makes a task the same: defaults filled in, so that writing one out is no difference."""
    return {
        "metadata": {"namespace": file.task.namespace, "name": file.task.name},
        "spec": file.task.spec.model_dump(mode="json", by_alias=True, exclude={"suspend"}),
    }


def _filled(kept: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a task did not have yet when its folder was made."""
    try:
        spec = CollectiveTaskSpec.model_validate_json(json.dumps(kept["spec"]))
    except ValidationError:
        return kept
    return {**kept, "spec": spec.model_dump(mode="json", by_alias=True, exclude={"suspend"})}


def _differences(before: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path}: was {json.dumps(before)}, is {json.dumps(now)}"


def write_whole(path: Path, text: str) -> None:
    """Replace a file by this text; a crash or a full disk leaves the old one, or the new one, whole."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
