"""docs/learners.md: every snippet of it runs, in a folder made of nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from collective_learner import DiffPrivConfig
from collective_operator.api import parse_task

from .document import BLOCKS, FILES, ROOT, TEXT, try_it, write_files

COMMANDS = [shlex.split(line) for _, kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]


def needs(extra: str, *modules: str) -> pytest.MarkDecorator:
    missing = any(importlib.util.find_spec(module) is None for module in modules)
    return pytest.mark.skipif(missing, reason=f"needs the extra `{extra}`")


def run(command: list[str], folder: Path) -> str:
    program = [sys.executable, "-m", "collective_operator", *command[1:]]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    return write_files(tmp_path_factory.mktemp("mine"))


def test_every_snippet_is_run_here() -> None:
    python = {f"my-code/my_{name}.py" for name in ("data", "sklearn", "boosting", "torch", "keras", "private")}
    assert set(FILES) == {"make_sites.py", "try_it.py", "my-task.yaml", *python}
    kinds = [kind for _, kind, _ in BLOCKS]
    assert kinds.count("python") == 8
    assert kinds.count("yaml") == 3
    assert kinds.count("toml") == 1
    assert set(kinds) == {"python", "yaml", "toml", "sh"}


@needs("onnx", "onnxruntime", "skl2onnx")
def test_the_commands_do_what_the_text_says(folder: Path) -> None:
    """In order, as they stand there; the task with fewer learners and rounds."""
    task = folder / "my-task.yaml"
    task.write_text(task.read_text().replace("rounds: 3", "rounds: 1").replace("count: 3", "count: 2"))
    told = {}
    for command in COMMANDS:
        assert command[0] == "collective"
        told[command[1], len(command)] = run(command, folder)
    assert [command[1] for command in COMMANDS] == ["check", "run", "export", "predict", "predict"]
    assert "model MY_LOGISTIC on PATIENTS: my_sklearn.my_logistic" in told["check", 5]
    assert "Complete" in told["run", 5]
    assert "checked against scikit-learn" in told["export", 3]
    assert re.match(r"0: class [01], probability 0\.\d+\n", told["predict", 4])
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 569 - 540
    assert all(answer["class"] in (0, 1) for answer in answers)


def test_rounds_in_one_process_with_scikit_learn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_it(folder, monkeypatch).count("accepted") >= 1
    assert try_it(folder, monkeypatch, "my_boosting", "MY_BOOSTING").count("accepted") >= 1


@needs("torch", "torch")
def test_rounds_in_one_process_with_pytorch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' turn is in `keras_cases`, where TensorFlow is."""
    assert try_it(folder, monkeypatch, "my_torch", "MY_NETWORK").count("accepted") >= 1


def test_a_private_learner_of_ones_own_learns_and_is_charged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTIVE_STATE_DIR", str(folder / "state"))
    with pytest.raises(ValueError, match="about other data"):  # three learners, and one folder
        try_it(folder, monkeypatch, "my_private", "MY_PRIVATE")
    monkeypatch.delenv("COLLECTIVE_STATE_DIR")
    assert try_it(folder, monkeypatch, "my_private", "MY_PRIVATE").count("accepted") >= 1


def test_what_is_no_file_is_valid_too() -> None:
    task = yaml.safe_load(FILES["my-task.yaml"])
    parts = [yaml.safe_load(block) for _, kind, block in BLOCKS if kind == "yaml" and block not in FILES.values()]
    part, private = parts
    learners = {**task["spec"]["learners"], **private["learners"]}
    spec = parse_task({**task, "spec": {**task["spec"], "model": private["model"], "learners": learners}}).spec
    assert spec.model.parameters["diff_priv_config"].keys() == {field.name for field in fields(DiffPrivConfig)}
    spec = parse_task({**task, "spec": {**task["spec"], **part}}).spec
    assert spec.strategy.type == "FedProx"
    assert spec.stop is not None
    assert spec.stop.patience == 5
    (entry_points,) = (tomllib.loads(block) for _, kind, block in BLOCKS if kind == "toml")
    source = (ROOT / "learner_image" / "collective_learner" / "imports.py").read_text()
    assert [f'ENTRY_POINTS = "{group}"' in source for group in entry_points["project"]["entry-points"]] == [True]


def test_links_lead_somewhere() -> None:
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", TEXT, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings
    assert "docs/learners.md" in (ROOT / "README.md").read_text()
    assert os.path.exists(ROOT / "docs" / "learners.md")
