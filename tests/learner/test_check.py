"""Modules that register models, wherever they come from: named, in a folder, or offered by an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADER = """
from collective_learner import FactoryRegistry
@FactoryRegistry.register_dataloader("MINE")
def load(location: str, share: float = 0.5) -> int:
    raise RuntimeError("nobody asked for data")
"""
MODEL = """
from collective_learner import FactoryRegistry, MachineLearningInterface
@FactoryRegistry.register_model_architecture("MY_MODEL", ["MINE"])
def build(data_loaders: int, rate: float = 0.1) -> MachineLearningInterface: ...
"""


def run(*arguments: str, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    entries = [str(path or ""), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "collective_operator", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, entries))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def package(folder: Path, value: str, text: str) -> Path:
    """Lay out what pip would leave of a package with an entry point."""
    installed = folder / "installed"
    info = installed / "nice_tasks-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nice-tasks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[collective.tasks]\nnice = {value}\n[console_scripts]\nother = no:no\n")
    (installed / "nice_tasks.py").write_text(text)
    return installed


def test_what_a_module_registers_is_shown_and_nothing_is_loaded(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "my_loaders.py").write_text(LOADER)
    (tmp_path / "my_models.py").write_text(MODEL)
    done = run("check", "my_loaders", "my_models", "--code", "code", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"data loader MINE: my_loaders.load ({code.resolve()}/my_loaders.py:3)",
        "  share = 0.5",
        f"model MY_MODEL on MINE: my_models.build ({tmp_path.resolve()}/my_models.py:3)",
        "  rate = 0.1",
    ]
    as_json = run("check", "my_loaders", "my_models", "--code", "code", "--json", folder=tmp_path)
    assert json.loads(as_json.stdout) == {
        "compatibilities": {"MY_MODEL": ["MINE"]},
        "data_loaders": {"MINE": {"share": 0.5}},
        "model_architectures": {"MY_MODEL": {"rate": 0.1}},
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MODEL, "Error: --import mine: mine.build (*mine.py:3) cannot be the model 'MY_MODEL': its data loader 'MINE'"),
        ("1 / 0", 'Error: --import mine failed: ZeroDivisionError: division by zero\n  File "*mine.py", line 1'),
        ("x = 1", "Error: mine is imported, and registers neither a data loader nor a model"),
    ],
)
def test_what_is_wrong_with_a_module_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    done = run("check", "mine", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    begin, _, rest = told.partition("*")
    assert done.stderr.startswith(begin)
    assert rest in done.stderr


def test_a_module_of_the_folder_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "mine.py").write_text("import json; json.dumps({})" + LOADER)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run("check", "mine", "--code", str(tmp_path), folder=elsewhere)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", ["nice_tasks", "nice_tasks:load"])
def test_an_installed_package_offers_its_tasks(value: str, tmp_path: Path) -> None:
    installed = package(tmp_path, value, LOADER)
    done = run("check", folder=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert "data loader MINE: nice_tasks.load" in done.stdout
    assert "data loader DIGITS" in done.stdout, "beside the built-in ones"
    (tmp_path / "mine.py").write_text(MODEL)
    assert run("check", "mine", folder=tmp_path, path=installed).stdout.startswith("model MY_MODEL on MINE")


def test_a_broken_package_is_named_and_has_its_own_status(tmp_path: Path) -> None:
    installed = package(tmp_path, "nice_tasks", "import no_such_dependency")
    done = run("serve", "--port=0", "--metrics-port=0", folder=tmp_path, path=installed)
    assert done.returncode == 78
    said = (
        "Error: entry point nice = nice_tasks of nice-tasks 1.2 failed: ModuleNotFoundError: No module named 'no_such"
    )
    assert said in done.stderr
    assert 'nice_tasks.py", line 1' in done.stderr
