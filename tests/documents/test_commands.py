"""The commands of the pages: each is run somewhere, and those that need nothing are run here."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

import click
import pytest

from collective_operator.cli import collective, main

from .pages import ROOT, Block, Command, blocks, every_block, every_command
from .shell import HERE, IN_A_CLUSTER, NOT_RUN, OWN, not_run, of

MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a checkout has, to which commands may add."""
    for name in ("examples", "helm", "crds"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("src", "my-code"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_by_somebody(command: Command) -> bool:
    if command.program == "collective" and command.words[1] in (*HERE, *IN_A_CLUSTER):
        return True
    return command.program in ("kubectl", "helm") or not_run(command) is not None


def test_every_command_is_run_by_somebody() -> None:
    assert [f"{command.block}: {command.text}" for command in every_command() if not run_by_somebody(command)] == []


def test_whoever_is_said_to_run_it_is_there() -> None:
    told = " ".join([*NOT_RUN.values(), *OWN.values()])
    for name in re.findall(r"tests/[\w/]+(?:\.py)?", told):
        assert (ROOT / name).exists(), name
    for page, test in OWN.items():
        assert Path(page).stem.split("_")[0] in (ROOT / test).read_text(), page
    used = {not_run(command) for command in every_command()}
    assert [shape for shape, reason in NOT_RUN.items() if reason not in used] == []


@pytest.mark.parametrize("command", of("collective"), ids=lambda command: f"{command.block}-{command.text}")
def test_its_options_are_right(command, place: Path) -> None:
    """Parsed as it would be, and not run: click refuses what it does not know."""
    _, name, *arguments = command.words
    entry = collective.get_command(click.Context(collective), name)
    assert entry is not None, name
    try:
        context = entry.make_context(name, [*arguments])
        if isinstance(entry, click.Group):
            inner, found, rest = entry.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None and inner is not None
            found.make_context(inner, rest, parent=context)
    except click.MissingParameter:
        assert command.text.count(" ") < 3, "in a sentence, where it is only named"


@pytest.mark.parametrize("page", sorted({command.page for command in of("collective")} - set(OWN)))
def test_what_needs_nothing_is_run(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the page, with the files that it shows."""
    for block in blocks(page):
        if block.file:
            (place / block.file).parent.mkdir(parents=True, exist_ok=True)
            (place / block.file).write_text(block.text)
    for command in of("collective"):
        if command.page == page and command.words[1] in HERE and command.block in blocks(page):
            assert main(command.words[1:]) == 0, f"{command.text}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("command", of("make"), ids=lambda command: f"{command.block}-{command.text}")
def test_there_is_such_a_target(command) -> None:
    words = command.words[1:]
    targets = [word for word in words if "=" not in word]
    given = [word.partition("=")[0] for word in words if "=" in word]
    given += re.findall(r"([A-Z_]+)=", command.text.partition("make ")[0])
    assert targets
    assert [target for target in targets if not re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE)] == []
    assert [name for name in given if not re.search(rf"\$(?:\(|\(call |\$?\{{){name}\b", MAKEFILE)] == []


@pytest.mark.parametrize("command", of("pip"), ids=lambda command: str(command.block))
def test_there_are_such_extras(command) -> None:
    extras = set(metadata("collective-operator").get_all("Provides-Extra") or ())
    (wanted,) = re.findall(r"collective-operator\[([\w,-]+)\]", command.text)
    assert set(wanted.split(",")) <= extras


def test_nothing_is_typed_in_a_block_that_says_it_is_no_shell() -> None:
    programs = r"(?:\$ )?(?:kubectl|helm|collective|make|pip|docker) [a-z-]"
    assert [str(block) for block in every_block() if block.language == "text" and re.match(programs, block.text)] == []


def test_a_command_that_nobody_runs_is_found() -> None:
    block = Block(page="README.md", line=1, language="sh", text="")
    for text in ("curl https://example.com", "collective mend digits", "python other.py", "docker pull x"):
        assert not run_by_somebody(Command(block=block, text=text)), text
