"""docs/results.md: what it shows of a task is valid, and the files that it names are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from collective_coordinator.config import FORMATS, TRACKERS
from collective_coordinator.results import FILES
from collective_operator.api import parse_task
from collective_operator.run.driver import BEST_MODELS, EXPORTS, MODELS
from collective_operator.run.workdir import ROUNDS

from .world import manifest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "results.md").read_text()


def test_its_tasks_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    results = [parse_task(manifest(**yaml.safe_load(block))).spec.result for block in blocks]
    assert [bool(result.location) for result in results] == [True, False]
    assert set(results[0].formats) == set(FORMATS)
    assert all(f"`{tracker}` is" in TEXT and f"{tracker}: " in blocks[1] for tracker in TRACKERS)


def test_its_files_are_those_that_are_served_and_told() -> None:
    named = set(re.findall(r"`([a-z-]+\.[a-z]+)`[ ;]", TEXT[: TEXT.index("## The model card")]))
    assert (named | {"best-model.bin"}) - {"result.formats"} == set(FILES)
    assert {*MODELS, *EXPORTS, *BEST_MODELS, ROUNDS} == set(FILES), "of a run on one machine, too"


def test_the_extras_that_it_names_are_there() -> None:
    extras = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r"EXTRAS=([a-z0-9,]+)", TEXT)[0].split(",")
    assert named == ["s3", "gcs", "azure", "mlflow", "tensorboard"]
    assert all(re.search(rf"^{extra} = \[", extras, flags=re.MULTILINE) for extra in named)
