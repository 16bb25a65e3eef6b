"""The half of `collective check` that reads task files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from collective_operator.api import CollectiveTask
from collective_operator.run.refusal import RefusedError
from collective_operator.run.task_file import read_task_file

_REFUSED = 2
_STDIN = "/dev/stdin"


@click.command()
@click.argument("files", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
def check_task(files: Sequence[str], as_json: bool) -> int:
    """Check task files; return 0 when all are valid, else 2."""
    found = [_checked(file) for file in files]
    if as_json:
        click.echo(json.dumps(found))
    else:
        for one in found:
            for problem in one["problems"]:
                click.echo(problem, err=True)
            if one["valid"]:
                click.echo(f"{one['file']}: {one['summary']}")
    return 0 if all(one["valid"] for one in found) else _REFUSED


def _checked(file: str) -> dict[str, Any]:
    try:
        task = read_task_file(Path(_STDIN if file == "-" else file)).task
    except RefusedError as refused:
        problems = [f"{file}{told.removeprefix(_STDIN)}" if file == "-" else told for told in refused.problems]
        return {"file": file, "valid": False, "problems": problems}
    return {"file": file, "valid": True, "problems": [], "summary": summary_of(task)}


def summary_of(task: CollectiveTask) -> str:
    """Tell in a line what a task does."""
    spec = task.spec
    return (
        f"{task.name} is valid: {spec.model.name} on {spec.data_loader.name}, {spec.learners.size} learners, "
        f"{spec.rounds} rounds, {spec.strategy.label}"
    )
