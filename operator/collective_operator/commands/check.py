"""`collective check`: what a cluster would say of a task file, and what a learner would of a module; offline, both.

A file is what ends like one (`.yaml`, `.yml`, `.json`) or is `-`; no module's name does. Each kind needs an extra of
its own, so neither is loaded for the other.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem

from collective_operator.cli import Entry, load_command

_SUFFIXES = (".yaml", ".yml", ".json")
_TASKS = Entry(
    home="collective_operator.commands.check_task:check_task", extra="task", summary="Check task files.", hidden=True
)
_MODULES = Entry(home="collective_learner.cli:check", extra="learner", summary="Check modules.", hidden=True)


def _paths(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


@click.command()
@click.argument("targets", nargs=-1, metavar="[FILE | MODULE]...", shell_complete=_paths)
@click.option(
    "--code",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Modules are also found in this folder, as in a task with learners.codeFrom.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, and nothing else there.")
@click.pass_context
def check(context: click.Context, targets: tuple[str, ...], code: str | None, as_json: bool) -> int:
    """Check task files, or modules that register models and data.

    A FILE (.yaml, .yml, .json, or - for standard input) is read as the cluster would read it: every problem is a line
    that names the field, the value and what is allowed. Exit status: 0 valid, 2 refused.

    A MODULE is imported as a learner would, and what it registers is told; without any, what is there already. Nothing
    is started, and no data is loaded. Exit status: 0 all is well, 1 something is not.
    """
    files = [target for target in targets if target == "-" or target.lower().endswith(_SUFFIXES)]
    if not files:
        for target in filter(os.path.isfile, targets):
            raise click.UsageError(f"{target}: a task file's name ends with one of {', '.join(_SUFFIXES)}")
        modules = load_command("check", _MODULES)
        context.invoke(modules, modules=targets, code=code, as_json=as_json)
        return 0
    if len(files) < len(targets):
        raise click.UsageError("task files and modules are checked one kind at a time")
    if code is not None:
        raise click.UsageError("--code is for modules")
    outcome = context.invoke(load_command("check", _TASKS), files=targets, as_json=as_json)
    return int(outcome)
