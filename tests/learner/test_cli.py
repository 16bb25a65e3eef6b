from __future__ import annotations

import ast
import json
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from collective_learner import tasks
from collective_learner.cli import probe, serve, serve_many
from collective_learner.imports import ImportFailedError, import_tasks


def test_probe_prints_attempts_success_and_dictionary(servers) -> None:
    server = servers.start()
    done = CliRunner().invoke(probe, ["--port", str(server.port), "--ip_addr", "127.0.0.1"])
    assert done.exit_code == 0
    first, second, dictionary = done.output.split("\n", 2)
    assert first == f"attempt 1 of 5: {server.address}"
    assert second == f"connected to {server.address}"
    offered = ast.literal_eval(dictionary)
    assert sorted(offered) == ["compatibilities", "data_loaders", "model_architectures"]
    assert offered["compatibilities"]["TINY"] == ["TINY_DATA"]
    assert offered["data_loaders"]["TINY_DATA"]["scale"] == 1.0
    as_json = CliRunner().invoke(probe, [f"--port={server.port}", "--json"])
    assert json.loads(as_json.stdout) == offered


def test_probe_tells_each_attempt_that_failed(free_port: int) -> None:
    done = CliRunner().invoke(probe, [f"--port={free_port}", "--attempts=2"])
    assert done.exit_code == 1
    assert len(re.findall(r"attempt \d of 2", done.output)) == 2
    assert done.output.count("no answer: ") == 2
    assert "Error: " in done.output
    assert "UNAVAILABLE" in done.output


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


MODULES = {
    "half_broken": (
        "\n\ndef load():\n    import no_such_dependency\nload()\n",
        r"failed: ModuleNotFoundError: No module named 'no_such_dependency'(?s:.*)half_broken.py.*line 4",
    ),
    "leaves": ("import sys\nsys.exit(3)\n", "failed: SystemExit: 3"),
    "ill_formed": ("def broken(:\n", "failed: SyntaxError"),
    "unregistrable": (
        """
        from collective_learner import FactoryRegistry
        @FactoryRegistry.register_dataloader("X")
        def my_loader(path) -> int: ...
        """,
        r"unregistrable: unregistrable.my_loader \(.*unregistrable.py:3\) cannot be the data loader 'X': its first",
    ),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_does_not_import_is_told_with_where(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = MODULES[module]
    write(tmp_path, module, text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportFailedError, match=message) as failed:
        import_tasks([module])
    assert str(failed.value).startswith(f"--import {module}")
    assert str(failed.value).count("\n") < 10


def test_serve_refuses_a_module_that_is_not_there() -> None:
    ports = ["--port=0", "--metrics-port=0", "--host=127.0.0.1"]
    done = CliRunner().invoke(serve, [*ports, "--import", "json", "--import", "no_such_module"])
    assert done.exit_code == 78  # by which the operator knows that another start cannot help
    assert "Error: --import no_such_module failed: ModuleNotFoundError: No module named 'no_such_module'" in done.output


@pytest.mark.parametrize("name", ["", "../models", "my models", "models.py.", "1st"])
def test_what_is_no_name_of_a_module_is_told_so(name: str) -> None:
    with pytest.raises(ImportFailedError, match=r"no name of a module, such as my_module or my_package\.my_module"):
        import_tasks([name])


def test_modules_of_the_working_directory_are_found_and_shadow_nothing(tmp_path: Path) -> None:
    write(tmp_path, "my_models", "import json; found = json.dumps({})")
    write(tmp_path, "json", "raise RuntimeError('shadowed')")
    program = (
        "import sys; sys.path[:] = [entry for entry in sys.path if entry]\n"
        "from collective_learner.imports import import_tasks\n"
        "import_tasks(['my_models'])\n"
        "print(sys.modules['my_models'].found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "{}", done.stderr


def test_tasks_whose_framework_is_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tasks.BUILTIN
    monkeypatch.setattr(tasks, "BUILTIN", {"no_such_module": ("numpy", "no_such_framework"), "data": ("numpy",)})
    assert tasks.load_builtin_tasks() == ["data"]


def many(servers, eventually, free_range, count: int, *options: str):
    first = free_range(2 * count)
    fleet = servers.spawn(
        "-m",
        "collective_operator",
        "serve-many",
        f"--n_learners={count}",
        f"--port={first}",
        f"--metrics_port={first + count}",
        "--host=127.0.0.1",
        "--import=tiny",
        *options,
    )
    fleet.has_children = True
    eventually(lambda: fleet.log().count("listening") == count or fleet.process.poll() is not None, what="listening")
    assert fleet.process.poll() is None, fleet.log()
    return fleet, range(first, first + count)


def closed(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_many_learners_serve_on_consecutive_ports_and_end_together(
    servers, eventually, free_range, number: signal.Signals
) -> None:
    fleet, ports = many(servers, eventually, free_range, 2, "--grace=5")
    for port in [*ports, *(port + 2 for port in ports)]:
        assert not closed(port)
    fleet.process.send_signal(number)
    assert fleet.wait() == 0
    assert all(closed(port) for port in ports)


def test_one_dead_learner_ends_all_with_its_status(servers, eventually, connect, free_range) -> None:
    fleet, ports = many(servers, eventually, free_range, 2, "--grace=5")
    fleet.port = ports[1]
    peer = connect(fleet)
    peer.setup(faults={"propose": "kill"})
    with pytest.raises(Exception, match="UNAVAILABLE"):
        peer.propose()
    assert fleet.wait() == 9
    assert "learner 1 ended with status 9" in fleet.log()
    assert all(closed(port) for port in ports)


@pytest.mark.parametrize(
    "options",
    [
        ["--port=65534", "-n", "5"],
        ["--port=0"],
        ["--port=9090", "--metrics-port=9091"],
        ["-n", "0"],
        ["--metrics-port=65535", "-n", "2"],
    ],
)
def test_ports_that_cannot_be_are_refused(options: list[str]) -> None:
    assert CliRunner().invoke(serve_many, options).exit_code == 2
