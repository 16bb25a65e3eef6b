"""The tutorials: their scripts run, their texts show what stands in the scripts, their commands do what is said."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from collective_operator.api import parse_task

from ..ports import free_ports
from .runs import ROOT

FOLDER = ROOT / "examples" / "tutorials"
TEXTS = sorted(FOLDER.glob("*.md"))
SCRIPTS = {path.name: path.read_text() for path in FOLDER.glob("*.py")}
NEEDS_SKLEARN = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs the extra `sklearn`")
NEEDED = ("tensorflow", "keras", "collective_learner.learners.keras")
NEEDS_KERAS = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs the extra `keras`"
)


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path, timeout: float = 250) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_what_a_text_shows_stands_in_its_scripts(text: Path) -> None:
    named = set(re.findall(r"\]\((\w+\.(?:py|md))\)", text.read_text()))
    assert f"{text.stem}.py" in named
    assert all((FOLDER / name).exists() for name in named)
    shown = blocks(text.read_text(), "python")
    assert len(shown) > 3
    scripts = "\n\n\n".join(SCRIPTS[name] for name in named if name in SCRIPTS)
    for block in shown:
        assert block in scripts, block


def test_there_is_a_text_for_each_script() -> None:
    assert {path.stem for path in TEXTS} == {"grpc_tutorial", "keras_tutorial"}
    assert set(SCRIPTS) == {"grpc_tasks.py", "grpc_tutorial.py", "keras_tutorial.py"}


@NEEDS_SKLEARN
def test_the_grpc_tutorial_runs(tmp_path: Path) -> None:
    output = run([sys.executable, str(FOLDER / "grpc_tutorial.py"), str(free_ports(5)), "3"], tmp_path)
    assert output.splitlines()[0] == "{'train_ratio': 0.6}"
    assert re.findall(r"selected proposer:  (\d)", output) == ["0", "1", "2"]
    assert "new model accepted: yes" in output
    assert (tmp_path / "collective-results.png").stat().st_size > 0


@pytest.mark.slow
@NEEDS_KERAS
def test_the_keras_tutorial_runs(tmp_path: Path) -> None:
    output = run([sys.executable, str(FOLDER / "keras_tutorial.py"), "2"], tmp_path)
    assert re.findall(r"selected proposer:  (\d)", output) == ["0", "1"]
    assert "new model accepted: yes" in output
    assert (tmp_path / "collective-results.png").stat().st_size > 0


@NEEDS_SKLEARN
def test_the_commands_of_the_grpc_tutorial_do_what_it_says(tmp_path: Path) -> None:
    """In order, as they stand there; but for ports, fewer learners and rounds, and those for a cluster."""
    text = (FOLDER / "grpc_tutorial.md").read_text()
    shutil.copy(FOLDER / "grpc_tasks.py", tmp_path)
    (task,) = map(yaml.safe_load, blocks(text, "yaml"))
    task["spec"]["rounds"], task["spec"]["learners"]["count"] = 1, 2
    parse_task(task)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    port = free_ports(2)
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    outputs: dict[str, str] = {}
    serving: subprocess.Popen[str] | None = None
    try:
        for line in lines:
            program, *arguments = shlex.split(line)
            if program != "collective":
                assert program in ("python", "kubectl")
                continue
            changed = {"9995": str(port), "5": "2", "15": "1"}
            arguments = [changed.get(argument, argument) for argument in arguments]
            command = [sys.executable, "-m", "collective_operator", *arguments]
            if arguments[0] == "serve-many":
                log = (tmp_path / "serve-many.log").open("w+")
                serving = subprocess.Popen([*command, "--host", "127.0.0.1"], cwd=tmp_path, stderr=log, text=True)
                deadline = time.monotonic() + 120
                while (tmp_path / "serve-many.log").read_text().count("listening on") < 2:
                    assert serving.poll() is None and time.monotonic() < deadline
                    time.sleep(0.05)
            else:
                outputs[arguments[0]] = run(command, tmp_path)
    finally:
        if serving is not None:
            serving.terminate()
            serving.wait(60)
    assert set(outputs) == {"check", "probe", "demo", "run"}
    assert "model TUTORIAL_LOGISTIC on TUTORIAL_DIGITS: grpc_tasks.build_learner" in outputs["check"]
    assert "'TUTORIAL_DIGITS': {'train_ratio': 0.6}" in outputs["probe"]
    assert "Round 1 of 1" in outputs["demo"]
    assert "Complete" in outputs["run"]
