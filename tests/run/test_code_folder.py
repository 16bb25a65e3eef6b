"""The folder that stands for a ConfigMap on a laptop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collective_operator.run.code_folder import code_folders, read_options
from collective_operator.run.refusal import RefusedError
from collective_operator.run.task_file import TaskFile, read_task_file

from .runs import halving


@pytest.fixture
def file(tmp_path: Path) -> TaskFile:
    """A task that names a ConfigMap."""
    path = halving(tmp_path)
    text = path.read_text().replace("count: 3", "count: 3, codeFrom: {configMapRef: {name: my-models}}")
    path.write_text(text)
    return read_task_file(path)


def test_a_folder_beside_the_task_is_found(file: TaskFile, tmp_path: Path) -> None:
    (tmp_path / "my-models").mkdir()
    assert code_folders(file, {}) == {"my-models": tmp_path / "my-models"}
    (tmp_path / "other").mkdir()
    assert code_folders(file, read_options([f"my-models={tmp_path}/other"])) == {"my-models": tmp_path / "other"}


def test_a_task_that_names_none_needs_none(tmp_path: Path) -> None:
    plain = read_task_file(halving(tmp_path))
    assert code_folders(plain, {}) == {}
    with pytest.raises(RefusedError, match=r"--code-from my-models: .* has no spec.learners.codeFrom"):
        code_folders(plain, {"my-models": tmp_path})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "there is no folder .*/my-models; make it, or name another with --code-from my-models=DIR"),
        (["my-models"], "--code-from my-models: NAME=DIR is needed"),
        (["=x"], "--code-from =x: NAME=DIR is needed"),
        (["other=elsewhere"], "--code-from other: .* names my-models"),
        (["my-models=/no/where"], "there is no folder /no/where$"),
        (["my-models=a", "my-models=b"], "--code-from my-models=b: my-models is a already"),
    ],
)
def test_what_is_missing_or_wrong_is_refused(file: TaskFile, options: list[str], said: str) -> None:
    with pytest.raises(RefusedError) as refused:
        code_folders(file, read_options(options))
    (problem,) = refused.value.problems
    assert re.search(said, problem), problem
