"""Finds the folder that stands for the ConfigMap of `learners.codeFrom`, where there is no cluster to ask for it.

Looked for before anything is started: a learner without its modules would be a puzzle, a missing folder is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from collective_operator.run.refusal import RefusedError
from collective_operator.run.task_file import TaskFile

OPTION = "--code-from"


def read_options(given: Sequence[str]) -> dict[str, Path]:
    """Read ``--code-from NAME=DIR``.

    Raises
    ------
    RefusedError
        One is not of that form, or a name is given twice.
    """
    folders: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise RefusedError([f"{OPTION} {text}: NAME=DIR is needed, the ConfigMap's name and a folder"])
        if name in folders:
            raise RefusedError([f"{OPTION} {text}: {name} is {folders[name]} already"])
        folders[name] = Path(folder)
    return folders


def code_folders(file: TaskFile, given: Mapping[str, Path]) -> dict[str, Path]:
    """Find the folder of each ConfigMap that the task names.

    Parameters
    ----------
    file
        The task; a folder of the ConfigMap's name beside it is taken when none is given.
    given
        Folders by the ConfigMap's name.

    Raises
    ------
    RefusedError
        There is none, or one is given that the task does not name.
    """
    name = file.task.spec.learners.code_config_map
    for other in given:
        if other != name:
            named = f"names {name}" if name else "has no spec.learners.codeFrom"
            raise RefusedError([f"{OPTION} {other}: {file.path} {named}"])
    if name is None:
        return {}
    beside = file.path.parent / name
    folder = given.get(name, beside)
    if not folder.is_dir():
        cure = "" if name in given else f"; make it, or name another with {OPTION} {name}=DIR"
        raise RefusedError([
            f"{file.path}: spec.learners.codeFrom.configMapRef.name: {name}: there is no folder {folder}{cure}"
        ])  # fmt: skip
    return {name: folder}
