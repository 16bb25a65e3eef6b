"""A real Prometheus scrapes a real task: every expression of every dashboard and alert finds series."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..cluster.control_plane import HOW_TO, eventually, find_binaries
from .expressions import of_alerts, of_dashboard
from .lab import NAMESPACE, Lab, lab
from .tools import DASHBOARDS, find

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VARIABLES = {
    "namespace": NAMESPACE,
    "task": "digits",
    "learner": ".*",
    "__rate_interval": "1m",
    "__interval": "15s",
    "__range": "5m",
}
# Expressions that may find nothing here, and why.
SILENT = {
    r"collective_gpu_": "no GPU here: tests/learner asks a driver where there is one",
    r"DCGM_": "NVIDIA's exporter runs on nodes with GPUs",
    r"unless .* offset": "a mark of the moment at which a task ended: see below",
    r"ALERTS": "an alert fires after minutes, or when something is wrong: promtool plays that in test_alerts.py",
    r"changes\(process_start_time_seconds": "the coordinator starts once",
    r'code!~"2\.\.\|404"': "the API server refused nothing",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    prometheus, binaries = find("prometheus"), find_binaries()
    if binaries is None:
        pytest.fail(HOW_TO) if os.environ.get("CI") == "true" else pytest.skip(HOW_TO)
    pytest.importorskip("opacus", reason="needs the extra `torch-dp`: the task trains with differential privacy")
    with lab(binaries, prometheus, tmp_path_factory.mktemp("lab")) as started:
        ask = started.prometheus.series
        started.run.until(lambda: ask('sum(collective_rounds_total{task="digits"}) > 3'), timeout_s=300)
        # Whoever is killed is left out of the rounds until it is back.
        started.kill_a_learner()
        started.run.until(lambda: ask("collective_left_out_total"), timeout_s=180)
        yield started


def silent(expression: str) -> bool:
    return any(re.search(pattern, expression) for pattern in SILENT)


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_something(board: Path, running: Lab) -> None:
    expressions = list(of_dashboard(json.loads(board.read_text())))
    # The page of one task shows one; the others show all.
    variables = VARIABLES if board.stem == "task" else {**VARIABLES, "task": ".*"}

    def nothing_is_empty() -> bool:
        told = [(it.place, it.filled(variables)) for it in expressions]
        empty = [f"{place}: {text}" for place, text in told if not silent(text) and not running.prometheus.series(text)]
        assert empty == []
        return True

    eventually(nothing_is_empty, timeout=180, every=1)
    assert running.run.process.poll() is None, running.run.output
    for it in expressions:
        running.prometheus.series(it.filled(variables))  # those that may be empty are expressions, too


def test_a_task_that_ended_is_marked_once(running: Lab) -> None:
    platform = next(board for board in DASHBOARDS if board.stem == "platform")
    (mark,) = json.loads(platform.read_text())["annotations"]["list"]
    expression = mark["expr"].replace("$namespace", NAMESPACE).replace("$__interval", "2s")

    def drawn() -> list[int]:
        now = time.time()
        found = running.prometheus.history(expression, start=now - 600, stop=now, step=1)
        return [len(it["values"]) for it in found if it["metric"]["name"] == "disk-full"]

    (points,) = eventually(drawn, timeout=180, what="the mark of the task that failed")
    assert points <= 3, "for as long as the interval, once"
    assert set(re.findall(r"\{\{(\w+)\}\}", mark["textFormat"])) == {"namespace", "name", "phase"}


def test_every_alert_looks_at_something(running: Lab) -> None:

    def health() -> list[str]:
        groups = running.prometheus.ask("rules")["groups"]
        return [rule["health"] for group in groups for rule in group["rules"]]

    eventually(lambda: health() == ["ok"] * len(of_alerts()), timeout=180, what="the rules to be evaluated")
    # Left and right of its comparisons, an alert asks for series that are there while nothing is wrong, too.
    selectors = {selector for rule in of_alerts() for selector in re.findall(r"collective_\w+(?:\s*\{[^}]*\})?", rule)}
    eventually(
        lambda: not [selector for selector in selectors if not running.prometheus.series(selector)],
        timeout=180,
        what=f"series of {selectors}",
    )


def test_the_alert_of_a_full_disk_fires(running: Lab) -> None:
    """The one alert that needs no minutes."""
    found = eventually(
        lambda: running.prometheus.series('ALERTS{alertname="CollectiveCheckpointFailing",alertstate="firing"}'),
        timeout=180,
        what="the alert",
    )
    assert [(it["metric"]["name"], it["metric"]["reason"]) for it in found] == [("disk-full", "StorageFailed")]
