"""The dashboards are made from their source, say what they show, and ask for nothing that no program exports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from collective_coordinator.metrics import Metrics
from collective_learner.metrics import LearnerMetrics
from collective_operator.metrics import OperatorMetrics

from .expressions import metrics_in, of_alerts, of_dashboard, panels
from .tools import DASHBOARDS, ROOT

BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}

# What a learner exports once it has trained, or where there is a GPU: tests/learner see these.
LATER = {
    "collective_examples_per_second",
    "collective_gpu_memory_bytes",
    "collective_gpu_memory_capacity_bytes",
    "collective_gpu_utilization_ratio",
}
FOREIGN = ("ALERTS", "DCGM_")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}


def families() -> list[Metric]:
    """What the three programs export from their start."""
    programs = (OperatorMetrics, Metrics, LearnerMetrics)
    return [family for program in programs for family in program().registry.collect()]


def documented() -> set[str]:
    """Name the metrics of the tables in docs/monitoring.md."""
    text = (ROOT / "docs" / "monitoring.md").read_text()
    return {name for line in text.splitlines() if line.startswith("| `") for name in metrics_in(line.split("|")[1])}


def test_they_are_what_their_source_makes() -> None:
    command = [sys.executable, "-m", "helm.generate", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_no_name_is_unknown() -> None:
    known = LATER | {f"{family.name}{suffix}" for family in families() for suffix in SUFFIXES.get(family.type, [""])}
    asked = {
        *(name for board in BOARDS.values() for it in of_dashboard(board) for name in metrics_in(it.text)),
        *(name for rule in of_alerts() for name in metrics_in(rule)),
    }
    assert {name for name in asked - known if not name.startswith(FOREIGN)} == set()


def test_the_documentation_lists_what_there_is() -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    names = {f"{family.name}{suffixes.get(family.type, '')}" for family in families()}
    assert documented() == LATER | {name for name in names if name.startswith("collective_")}


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_explains_itself(name: str) -> None:
    board = BOARDS[name]
    assert {"collective-learning"} == set(board["tags"])
    defined = {variable["name"] for variable in board["templating"]["list"]}
    assert "datasource" in defined
    used: set[str] = set()
    for panel in panels(board):
        title = panel["title"]
        assert panel["description"].endswith(".") or panel["description"].startswith("DCGM_"), title
        assert panel["datasource"]["uid"] == "${datasource}", title
        assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["fieldConfig"]["defaults"].get("thresholds") or panel["type"] == "table", title
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", title
            several = panel["type"] == "timeseries"
            assert target.get("legendFormat") or not several, f"{title} has no legend"
            used |= set(re.findall(r"\$(\w+)", target["expr"]))
    assert {found for found in used if not found.startswith("__") and not found.isdigit()} <= defined
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    boxes = [panel["gridPos"] for panel in board["panels"]]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    cells = [
        (x, y)
        for box in boxes
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie over each other"


def test_they_lead_to_one_another() -> None:
    uids = {board["uid"] for board in BOARDS.values()}
    assert len(uids) == len(BOARDS) == 3
    assert all(board["links"][0]["tags"] == ["collective-learning"] for board in BOARDS.values())
    linked = set(re.findall(r"/d/([\w-]+)", json.dumps(BOARDS)))
    assert linked == {"collective-task"} <= uids
    told = yaml.safe_load((ROOT / "helm" / "collective-operator" / "values.yaml").read_text())["grafana"]["dashboards"]
    assert (told["label"], told["labelValue"]) == ("grafana_dashboard", "1")


def test_the_files_are_all_of_them() -> None:
    assert [path.name for path in DASHBOARDS] == ["gpu.json", "platform.json", "task.json"]
    assert all(Path(path).stat().st_size < 900_000 for path in DASHBOARDS), "a ConfigMap takes 1 MiB"


def test_no_table_shows_a_column_of_ones() -> None:
    for panel in (panel for board in BOARDS.values() for panel in panels(board) if panel["type"] == "table"):
        constant = len(panel["targets"]) == 1 and panel["targets"][0]["expr"].endswith("== 1")
        (organize,) = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
        assert any(field.startswith("Value") for field in organize["includeByName"]) is not constant, panel["title"]
