"""The `collective` command: loads what is asked for and nothing else, and says which extra is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from collective_operator import cli

COLLECTIVE = [sys.executable, "-m", "collective_operator"]


def collective(*arguments: str, prelude: str | None = None) -> subprocess.CompletedProcess[str]:
    program = COLLECTIVE
    if prelude is not None:
        program = [
            sys.executable,
            "-c",
            f"import sys\n{prelude}\nfrom collective_operator.cli import main\nsys.exit(main())",
        ]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A command in the table that notes how it was called."""
    seen: dict[str, object] = {}

    @click.command()
    @click.option("--n-learners", type=int)
    @click.option("--data_locations")
    @click.option("--import", "imports", multiple=True)
    @click.argument("rest", nargs=-1)
    def noted(**given: object) -> int:
        seen.update(given)
        return 5

    module = types.ModuleType("collective_test_commands")
    vars(module)["noted"] = noted
    monkeypatch.setitem(sys.modules, "collective_test_commands", module)
    entry = cli.Entry(home="collective_test_commands:noted", extra="x", summary="Notes.")
    monkeypatch.setitem(cli.COMMANDS, "take-note", entry)  # type: ignore[arg-type]  # a Mapping to all but tests
    return seen


@pytest.mark.parametrize("command", ["take-note", "take_note"])
@pytest.mark.parametrize("learners", ["--n-learners", "--n_learners"])
@pytest.mark.parametrize("locations", ["--data-locations", "--data_locations"])
def test_dashes_and_underscores_are_one_in_names_and_two_in_values(
    recorded: dict[str, object], command: str, learners: str, locations: str
) -> None:
    status = cli.main(
        [command, learners, "3", f"{locations}=/data/a_b,c-d_e", "--import", "my_module.sub_part", "left_over", "a-b"]
    )
    assert status == 5
    assert recorded == {
        "n_learners": 3,
        "data_locations": "/data/a_b,c-d_e",
        "imports": ("my_module.sub_part",),
        "rest": ("left_over", "a-b"),
    }


def test_help_lists_every_command_and_imports_none() -> None:
    shown = collective("--help")
    assert shown.returncode == 0
    listed = {line.split()[0] for line in shown.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed == {
        *("run", "serve", "serve-many", "probe", "check", "data", "export", "predict", "demo", "operator"),
        *("init", "list", "status", "watch", "logs", "results", "plot", "suspend", "resume", "abort", "retry"),
        "completion",
    }
    blocked = "for name in ('numpy', 'grpc', 'kopf', 'rich', 'yaml', 'pydantic', 'aiohttp'): sys.modules[name] = None"
    assert collective("--help", prelude=blocked).stdout == shown.stdout


@pytest.mark.parametrize("name", [name for name, entry in cli.COMMANDS.items()])
def test_every_command_is_where_the_table_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: collective {name}")


def test_version() -> None:
    assert collective("--version").stdout == "collective 0.1.0\n"


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("run", "rich", "run"),
        ("list", "kubernetes", "cluster"),
        ("init", "pydantic", "task"),
        ("serve", "grpc", "learner"),
        ("operator", "kopf", "operator"),
        ("demo", "grpc", "coordinator"),
    ],
)
def test_a_missing_extra_is_one_line_with_the_cure(command: str, missing: str, extra: str) -> None:
    refused = collective(command, prelude=f"sys.modules[{missing!r}] = None")
    assert refused.returncode == 2
    assert refused.stderr == (
        f"Error: `collective {command}` needs {missing}, which is not installed: "
        f"pip install 'collective-operator[{extra}]'\n"
    )


@pytest.mark.parametrize(
    ("command", "module"), [("run", "collective_operator.run.cli"), ("operator", "collective_web")]
)
def test_a_module_of_our_own_that_is_missing_is_no_missing_extra(command: str, module: str) -> None:
    broken = collective(command, prelude=f"sys.modules[{module!r}] = None")
    assert "Traceback" in broken.stderr and "pip install" not in broken.stderr


def test_unknown_commands_and_options_are_refused() -> None:
    for arguments in (["nope"], ["run", "--nope"], ["run", "a.yaml", "--plain", "--json"], ["run"]):
        refused = collective(*arguments)
        assert refused.returncode == 2
        assert "Error: " in refused.stderr and "Traceback" not in refused.stderr


def test_programs_load_only_their_own_world() -> None:
    """An operator without numpy and gRPC, a learner without kopf: what the images leave out must not be asked for."""
    absent = {
        "operator": ("numpy", "grpc", "torch", "sklearn", "rich", "matplotlib", "safetensors"),
        "serve": ("kopf", "kubernetes", "yaml", "pydantic", "rich", "matplotlib", "aiohttp", "torch", "sklearn"),
        "coordinate": ("kopf", "kubernetes", "yaml", "pydantic", "rich", "matplotlib", "torch", "sklearn"),
        "run": ("kopf", "kubernetes", "numpy", "grpc", "torch", "sklearn", "matplotlib"),
        "results": ("kopf", "numpy", "grpc", "torch", "sklearn", "matplotlib", "rich", "cryptography"),
        "check": ("kopf", "kubernetes", "numpy", "grpc", "pydantic", "yaml", "rich"),
    }
    for command, names in absent.items():
        shown = collective(command, "--help", prelude=f"for name in {names!r}: sys.modules[name] = None")
        assert shown.returncode == 0, (command, shown.stderr)


def test_a_reader_that_left_is_no_traceback(tmp_path: Path) -> None:
    for arguments in (["--help"], ["--version"]):
        read_end, write_end = os.pipe()
        os.close(read_end)
        with os.fdopen(write_end, "wb") as gone:
            done = subprocess.run(
                [*COLLECTIVE, *arguments], stdout=gone, stderr=subprocess.PIPE, timeout=60, check=False
            )
        assert (done.returncode, done.stderr) == (1, b"")


def test_ctrl_c_is_130_without_a_traceback() -> None:
    program = (
        "import sys, time, click\n"
        "from collective_operator import cli\n"
        "stay = click.Command('stay', callback=lambda: (print('up', flush=True), time.sleep(60)))\n"
        "cli.load_command = lambda name, entry: stay\n"
        "sys.exit(cli.main(['run']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == ""
