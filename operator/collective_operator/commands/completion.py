"""`collective completion`, for shells, and `kubectl_complete-collective`, which kubectl asks for its plugins.

kubectl runs the program of that name with the words of the line, the last being the one to complete, and reads what
cobra's programs print: a line for each completion, with its help behind a tab, and a number that says what to make of
them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from collective_operator.cli import collective

_VARIABLE = "_COLLECTIVE_COMPLETE"
_FILES, _NO_FILES = 0, 4
"""Cobra's directives: complete files as well, or do not."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print the completion script for SHELL; completes commands, options and tasks.

    \b
    bash: echo 'source <(collective completion bash)' >>~/.bashrc
    zsh:  echo 'source <(collective completion zsh)' >>~/.zshrc
    fish: collective completion fish >~/.config/fish/completions/collective.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click completes no {shell}")
    click.echo(kind(collective, {}, "collective", _VARIABLE).source())


def kubectl_complete() -> None:
    """Answer kubectl."""
    found, directive = completions(sys.argv[1:])
    for item in found:
        click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(f":{directive}")


def completions(words: Sequence[str]) -> tuple[list[CompletionItem], int]:
    """Complete the last of the words of a line."""
    *before, incomplete = words or ("",)
    found = ShellComplete(collective, {}, "collective", _VARIABLE).get_completions(list(before), incomplete)
    paths = [item for item in found if item.type != "plain"]
    return [item for item in found if item.type == "plain"], _FILES if paths else _NO_FILES
