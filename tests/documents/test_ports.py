"""docs/porting.md: what it ports is trained, from the files as they stand there."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from collective_learner import DefaultMliFactory, FactoryRegistry, collective_learning_round, set_equal_weights

from .pages import blocks, every_block
from .shell import OWN

PYTHON = [block for block in every_block() if block.language == "python" and block.page not in OWN]
PORTS = {block.file: block.text for block in blocks("docs/porting.md") if block.file}
TABLE = "Age,SibSp,Parch,Fare,Pclass,Survived"


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and the tables that one of its tasks reads."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("porting")
    (folder / "ports").mkdir()
    for name, text in PORTS.items():
        (folder / name).write_text(text)
    random = np.random.default_rng(7)
    for ship in range(2):
        fares = random.uniform(5, 100, 200)
        ages = [age if age > 8 else "" for age in random.integers(1, 80, 200)]  # some are missing
        rows = [
            f"{age},{random.integers(8)},{random.integers(6)},{fare:.2f},{random.integers(1, 4)},{fare > 50:d}"
            for age, fare in zip(ages, fares, strict=True)
        ]
        (folder / f"ship-{ship}.csv").write_text("\n".join([TABLE, *rows, ""]))
    return folder


def test_every_python_of_other_pages_than_these_is_run_here() -> None:
    systems = ("colearn", "flower", "flare", "disco")
    assert {block.file for block in PYTHON if block.file} == {f"ports/from_{name}.py" for name in systems}
    assert {name for name in PORTS if name.endswith(".yaml")} == {
        f"ports/from-{name}.yaml" for name in ("flower", "flare", "disco")
    }


def test_a_script_drives_its_rounds(ports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ports / "ports" / "from_colearn.py"))
    assert re.findall(r"selected proposer:  (\d)", capsys.readouterr().out) == ["0", "1", "2"]


def test_a_task_with_a_learner_of_ones_own_is_trained(ports: Path) -> None:
    """Beside it lies the folder that stands for its ConfigMap."""
    shutil.copy(ports / "ports" / "from-flower.yaml", ports)
    command = [sys.executable, "-m", "collective_operator", "run", "from-flower.yaml", "--workdir", "out"]
    done = subprocess.run(command, cwd=ports, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    told = json.loads((ports / "out" / "result.json").read_text())
    assert (told["phase"], told["rounds"]) == ("Complete", 3)
    assert told["testScore"] > 0.7
    for block in PYTHON:
        if block.file is None:  # a few lines about what a run leaves
            with contextlib.chdir(ports / "out"):
                exec(compile(block.text, str(block), "exec"), {})


@pytest.mark.parametrize(("name", "framework"), [("disco", "sklearn"), ("flare", "torch")])
def test_what_a_task_names_is_trained(name: str, framework: str, ports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with the names, the parameters and the places of the task."""
    pytest.importorskip(framework)
    monkeypatch.setattr(FactoryRegistry, "dataloaders", {})
    monkeypatch.setattr(FactoryRegistry, "model_architectures", {})
    monkeypatch.syspath_prepend(str(ports / "ports"))
    monkeypatch.chdir(ports)
    spec = yaml.safe_load(PORTS[f"ports/from-{name}.yaml"])["spec"]
    (module,) = spec["learners"]["imports"]
    assert spec["learners"]["codeFrom"]["configMapRef"]["name"] == "ports"
    importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module)
    model, loader, learners = spec["model"], spec["dataLoader"], spec["learners"]
    places = [site["location"] for site in learners.get("sites", ())]
    places = places or [learners["location"].format(index=index) for index in range(learners["count"])]
    trained = [
        DefaultMliFactory().get_mli(
            model["name"],
            json.dumps(model.get("parameters", {})),
            loader["name"],
            json.dumps({"location": place, **loader.get("parameters", {})}),
        )
        for place in places
    ]
    set_equal_weights(trained)
    assert collective_learning_round(trained, vote_threshold=0.5, round_index=0).vote
