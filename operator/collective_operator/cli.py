"""The `collective` command: one name for programs that must not load each other.

`collective operator` runs where there is no numpy and no gRPC, `collective serve` where there is no kopf. So commands
stand in a table of strings, with their one-line help, and a command's module is imported when that command is asked
for. `collective --help` imports none of them. A command whose extra is not installed says which one brings it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import click
from click.shell_completion import CompletionItem

DISTRIBUTION = "collective-operator"
INTERRUPTED = 130
_OWN_PACKAGES = frozenset({"collective_operator", "collective_coordinator", "collective_learner", "collective_web"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a command lives and what it needs."""

    home: str
    """``module:attribute`` of the click command."""
    extra: str
    """The extra of the distribution that installs what the command imports."""
    summary: str
    """Its line in ``collective --help``, told without importing it."""
    hidden: bool = False
    """Left out of the help: meant for programs, not for people."""


COMMANDS: Mapping[str, Entry] = {
    "run": Entry(
        home="collective_operator.run.cli:run",
        extra="run",
        summary="Run a task file on this machine, without a cluster.",
    ),
    "init": Entry(
        home="collective_operator.commands.init:init",
        extra="task",
        summary="Ask a few questions, and write a task file.",
    ),
    "check": Entry(
        home="collective_operator.commands.check:check",
        extra="task",
        summary="Check task files, or modules that register models and data.",
    ),
    "list": Entry(
        home="collective_operator.commands.listing:list_tasks", extra="cluster", summary="List the tasks of a cluster."
    ),
    "status": Entry(
        home="collective_operator.commands.status:status",
        extra="cluster",
        summary="Tell where a task is, and what it waits for.",
    ),
    "watch": Entry(
        home="collective_operator.commands.watch:watch", extra="cluster", summary="Show a task while it runs."
    ),
    "logs": Entry(
        home="collective_operator.commands.logs:logs",
        extra="cluster",
        summary="Print the log of a task's coordinator, or of a learner.",
    ),
    "results": Entry(
        home="collective_operator.commands.results:results",
        extra="cluster",
        summary="Fetch what a task has learnt: model, rounds, picture.",
    ),
    "plot": Entry(home="collective_operator.commands.results:plot", extra="cluster", summary="Draw a task's rounds."),
    "suspend": Entry(
        home="collective_operator.commands.changes:suspend", extra="cluster", summary="Let a task stand still."
    ),
    "resume": Entry(
        home="collective_operator.commands.changes:resume", extra="cluster", summary="Let a suspended task go on."
    ),
    "abort": Entry(home="collective_operator.commands.changes:abort", extra="cluster", summary="End a task now."),
    "retry": Entry(
        home="collective_operator.commands.changes:retry", extra="cluster", summary="Try a failed task again."
    ),
    "completion": Entry(
        home="collective_operator.commands.completion:completion",
        extra="task",
        summary="Print the completion script for bash, zsh or fish.",
    ),
    "serve": Entry(home="collective_learner.cli:serve", extra="learner", summary="Serve one learner over gRPC."),
    "serve-many": Entry(
        home="collective_learner.cli:serve_many",
        extra="learner",
        summary="Serve several learners on consecutive ports.",
    ),
    "probe": Entry(
        home="collective_learner.cli:probe", extra="learner", summary="Ask a learner which models and data it has."
    ),
    "data": Entry(
        home="collective_learner.data.cli:data",
        extra="learner",
        summary="Make small data sets to try, and split real ones.",
    ),
    "export": Entry(
        home="collective_learner.export.cli:export",
        extra="onnx",
        summary="Write a run's model as ONNX, or as its framework's own file.",
    ),
    "predict": Entry(
        home="collective_learner.export.cli:predict",
        extra="onnx",
        summary="Ask a run's model about a table, an array or a picture.",
    ),
    "demo": Entry(
        home="collective_coordinator.cli:demo",
        extra="coordinator",
        summary="Drive rounds on learners that already run.",
    ),
    "operator": Entry(
        home="collective_operator.operator_cli:operator", extra="operator", summary="Run the Kubernetes operator."
    ),
    "coordinate": Entry(
        home="collective_coordinator.cli:coordinate",
        extra="coordinator",
        summary="Drive the rounds of one task: what a coordinator pod runs.",
        hidden=True,
    ),
}


class MissingExtra(click.ClickException):
    """A command was asked for whose dependencies are not installed."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time, each when it is used.

    Parameters
    ----------
    entries
        The commands by name.
    **attributes
        What `click.Group` takes.
    """

    def __init__(self, *, entries: Mapping[str, Entry], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own attributes, passed on
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table, which is the order in which a newcomer meets them."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, and only it."""
        entry = self.entries.get(cmd_name)
        return None if entry is None else load_command(cmd_name, entry)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands' names from the table, as the help does, and the group's options."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=entry.summary)
            for name, entry in self.entries.items()
            if name.startswith(incomplete) and not entry.hidden
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table; click's own way would import every one for its help."""
        rows = [(name, entry.summary) for name, entry in self.entries.items() if not entry.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def load_command(name: str, entry: Entry) -> click.Command:
    """Import a command.

    Raises
    ------
    MissingExtra
        What it needs is not installed.
    """
    module_name, _, attribute = entry.home.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        # One of our own modules missing is a broken installation, and deserves its traceback.
        if package in ("", *_OWN_PACKAGES):
            raise
        raise MissingExtra(
            f"`collective {name}` needs {package}, which is not installed: pip install '{DISTRIBUTION}[{entry.extra}]'"
        ) from missing
    command = getattr(module, attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{entry.home} is a {type(command).__name__}, expected a click command")
    return command


def _dashes(token: str) -> str:
    return token.replace("_", "-")


@click.command(
    cls=LazyGroup,
    entries=COMMANDS,
    # Underscores are what users of colearn's scripts type. Only names are normalised: values pass as they are.
    context_settings={"token_normalize_func": _dashes, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name=DISTRIBUTION, prog_name="collective", message="%(prog)s %(version)s")
def collective() -> None:
    """Learners that train beside their own private data, and vote on each other's models."""


def _called() -> str:
    """Name this program as whoever called it did: kubectl runs its plugins by a name of their own."""
    return "kubectl collective" if PurePath(sys.argv[0]).stem == "kubectl-collective" else "collective"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `collective`, and return its exit status.

    Parameters
    ----------
    arguments
        What follows the program's name; those of this process by default.

    Returns
    -------
    int
        0 success, 1 the command failed, 2 refused input, 130 interrupted.
    """
    try:
        outcome = collective.main(args=arguments, prog_name=_called(), standalone_mode=False)
        # Flushed here, where a closed pipe can still be answered; at interpreter exit it would be a traceback.
        sys.stdout.flush()
    except click.ClickException as refused:
        refused.show()
        return refused.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Nothing more can be said, and Python must not try at exit.
        sys.stdout = None
        return 1
    return outcome if isinstance(outcome, int) else 0
