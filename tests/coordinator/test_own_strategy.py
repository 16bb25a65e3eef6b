"""What CONTRIBUTING.md says of a strategy in one file is so: the one that it shows trains real learners."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from collective_coordinator import task as coordinating
from collective_coordinator.board import Board
from collective_coordinator.config import STRATEGIES, parse_config
from collective_coordinator.metrics import Metrics
from collective_coordinator.pulse import Timing

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture
def lottery(tmp_path: Path) -> ModuleType:
    (code,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)
    path = tmp_path / "lottery.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("lottery", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_it_decides_rounds(lottery, plain, tmp_path, monkeypatch):
    learners = plain(*[{}] * 3)
    monkeypatch.setattr(coordinating, "strategy_of", lambda _, *, seed: lottery.Lottery(seed=seed))
    names = [f"learner-{index}" for index in range(3)]
    config = parse_config(
        json.dumps(
            {
                "version": 1,
                "task": {"namespace": "default", "name": "plain", "uid": "1"},
                "model": {"name": "PLAIN"},
                "dataLoader": {"name": "PLAIN"},
                "rounds": 6,
                "seed": 7,
                "learners": [
                    {"name": name, "address": f"127.0.0.1:{learner.port}"}
                    for name, learner in zip(names, learners, strict=True)
                ],
                "policy": {"minLearners": 3},
            }
        )
    )
    (tmp_path / "state").mkdir()
    reason, _ = await coordinating.drive(
        config, state_dir=tmp_path / "state", board=Board(config), metrics=Metrics(), timing=Timing()
    )
    assert reason == "RoundsCompleted"
    records = [json.loads(line) for line in (tmp_path / "state" / "rounds.jsonl").read_text().splitlines()]
    drawn = [lottery.Lottery(seed=7).trainers(round_number=each, live=names)[0] for each in range(1, 7)]
    assert [record["proposer"] for record in records] == drawn
    assert len(set(drawn)) > 1
    assert [set(record["votes"]) for record in records] == [set(names) - {name} for name in drawn]
    assert {record["accepted"] for record in records} == {True}


def test_the_places_that_know_a_strategy_by_name_are_those_that_are_named() -> None:
    places = [
        "operator/collective_coordinator/config/spec.py",
        "operator/collective_operator/api/strategy.py",
        "crds/collectivetask.yaml",
        "README.md",
    ]
    for place in places:
        text = (ROOT / place).read_text()
        assert [name for name in STRATEGIES if name not in text] == [], place
        assert Path(place).name.removesuffix(".md") in CONTRIBUTING, place
    assert "strategies/choice.py" in CONTRIBUTING
    there = {path.stem for path in (ROOT / "operator/collective_coordinator/strategies").glob("*.py")}
    assert {name.lower() for name in STRATEGIES} <= there


def test_the_folders_and_files_that_it_names_are_there() -> None:
    roots = [ROOT, *(ROOT / "operator" / name for name in ("", "collective_coordinator", "collective_operator"))]
    roots.append(ROOT / "learner_image" / "collective_learner")
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_.]*)`", CONTRIBUTING))
    for block in re.findall(r"```text\n(.*?)```", CONTRIBUTING, flags=re.DOTALL):
        columns = [re.match(r"\s*((?:[\w./]+ )+)", line) for line in block.splitlines()]
        named |= {word for found in columns if found for word in found[1].split()}
    assert len(named) > 20
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
