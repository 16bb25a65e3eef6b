"""`collective run`: reads the task, opens its folder, chooses how to tell, and drives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import click

from collective_operator.cluster.protocol import ClusterError
from collective_operator.run.code_folder import code_folders, read_options
from collective_operator.run.driver import drive, exit_status, files_of
from collective_operator.run.refusal import RefusedError
from collective_operator.run.task_file import TaskFile, read_task_file
from collective_operator.run.view import Ended, View
from collective_operator.run.views import view_of
from collective_operator.run.workdir import LOGS, Workdir, default_workdir

REFUSED = 2


@click.command()
@click.argument("task", type=click.Path(path_type=Path))
@click.option(
    "--workdir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go, by default runs/NAME-TIME. The folder of an earlier run of the same task: goes on there.",
)
@click.option(
    "--code-from",
    multiple=True,
    metavar="NAME=DIR",
    help="The folder that stands for the ConfigMap of learners.codeFrom; by default one of its name beside TASK.",
)
@click.option("--plain", is_flag=True, help="Lines instead of a live table; the default where stdout is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: begin, status, round, event, note, end.")
def run(task: Path, workdir: Path | None, code_from: tuple[str, ...], plain: bool, as_json: bool) -> int:
    """Run TASK, a file with one CollectiveTask, on this machine.

    Learners and the coordinator become processes here; the same file runs in a cluster by `kubectl apply -f`.

    The folder then holds result.json, rounds.jsonl (one line a round), model.safetensors, rounds.png and logs/.
    Exit status: 0 Complete, 1 Failed, 2 refused input, 130 interrupted.
    """
    if plain and as_json:
        raise click.UsageError("--plain and --json exclude each other")
    try:
        file = read_task_file(task)
        code = code_folders(file, read_options(code_from))
        folder = Workdir(workdir or default_workdir(file.task.name), file)
    except RefusedError as refused:
        for problem in refused.problems:
            click.echo(f"Error: {problem}" if not problem.startswith(" ") else problem, err=True)
        return REFUSED
    view = view_of("json" if as_json else "plain" if plain else None)
    try:
        return _in_folder(file, folder, view, code)
    except ClusterError as error:
        view.close()
        raise click.ClickException(error.message) from error
    finally:
        view.close()
        folder.close()


def _in_folder(file: TaskFile, folder: Workdir, view: View, code: Mapping[str, Path]) -> int:
    result = folder.result()
    if result is not None:
        view.note(f"{folder.path}: this run has ended already; choose another --workdir to run the task again")
        view.end(Ended(result=result, workdir=folder.path, files=files_of(folder.path)))
        return exit_status(result)
    logs = folder.path / LOGS
    logs.mkdir(exist_ok=True)
    # What the reconcile logs would tear the live table apart.
    logging.basicConfig(
        filename=logs / "run.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    return asyncio.run(drive(file, folder, view, code))
