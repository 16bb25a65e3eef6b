"""Every alert fires when it must, says what it means, and resolves: promtool runs the rules over made-up series."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .tools import ALERTS, ROOT, find

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
}
TASK = 'namespace="lab",name="digits"'
UPLOADING = 'namespace="lab",name="uploading"'


@dataclass(frozen=True)
class Case:
    """Series by the minute, and what becomes of them."""

    series: dict[str, str]
    quiet: str
    """When it does not fire yet, though it is pending or all is well."""
    fires: str
    resolved: str
    labels: dict[str, str]
    summary: str


CASES = {
    "CollectiveOperatorAbsent": Case(
        {'collective_build_info{version="1"}': "1x10 stale _x20 1x20"},
        quiet="13m",
        fires="20m",
        resolved="35m",
        labels={},
        summary="No operator answers Prometheus.",
    ),
    "CollectiveOperatorNoLeader": Case(
        # A standby that takes over at once is no alert: the sum is what counts.
        {
            'collective_leader{namespace="system",pod="a"}': "1x10 0x30",
            'collective_leader{namespace="system",pod="b"}': "0x20 1x20",
        },
        quiet="12m",
        fires="18m",
        resolved="25m",
        labels={"namespace": "system"},
        summary="Operators run in system, and none of them acts.",
    ),
    "CollectiveReconcileErrors": Case(
        {
            'collective_reconcile_total{namespace="system",result="error"}': "0x20 0+1x40 40x40",
            'collective_reconcile_total{namespace="system",result="success"}': "0+3x100",
        },
        quiet="25m",
        fires="55m",
        resolved="80m",
        labels={"namespace": "system"},
        summary="25% of the operator's reconciles in system fail.",
    ),
    "CollectiveTaskStalled": Case(
        {
            f"collective_task_last_round_timestamp_seconds{{{TASK}}}": "60x50 3000x20",
            f"collective_task_round_timeout_seconds{{{TASK}}}": "600x100",
            f'collective_task_condition{{{TASK},type="Progressing",reason="RoundsRunning"}}': "1x100",
            # One whose result takes long to bring away decides no rounds any more.
            f"collective_task_last_round_timestamp_seconds{{{UPLOADING}}}": "60x100",
            f"collective_task_round_timeout_seconds{{{UPLOADING}}}": "600x100",
            f'collective_task_condition{{{UPLOADING},type="Progressing",reason="UploadingResult"}}': "1x100",
        },
        quiet="31m",
        fires="40m",
        resolved="55m",
        labels={"namespace": "lab", "name": "digits"},
        summary="Task lab/digits runs, and has decided no round for 39m 0s.",
    ),
    "CollectiveTaskBelowQuorum": Case(
        {
            f'collective_task_condition{{{TASK},type="LearnersReady",status="False",reason="PodLost"}}': "1x20 stale",
            f"collective_task_round{{{TASK}}}": "0x3 1x40",
        },
        quiet="6m",
        fires="12m",
        resolved="25m",
        labels={"namespace": "lab", "name": "digits", "reason": "PodLost"},
        summary="Task lab/digits has fewer learners than its quorum (PodLost).",
    ),
    "CollectiveTaskWaitsForGpus": Case(
        {
            f'collective_task_learner_states{{{TASK},state="Unschedulable"}}': "2x20 stale",
            f"collective_task_gpus{{{TASK}}}": "4x60",
        },
        quiet="9m",
        fires="12m",
        resolved="25m",
        labels={"namespace": "lab", "name": "digits"},
        summary="2 learners of lab/digits have waited for a node with GPUs for ten minutes.",
    ),
    "CollectiveCoordinatorRestarts": Case(
        {f"collective_task_coordinator_attempts{{{TASK}}}": "0x5 1x5 2x10 0x20"},
        quiet="8m",
        fires="15m",
        resolved="30m",
        labels={"namespace": "lab", "name": "digits"},
        summary="The coordinator of lab/digits was lost 2 times without deciding a round.",
    ),
    "CollectivePrivacyBudgetNearlySpent": Case(
        {
            'collective_privacy_epsilon{namespace="lab",task="digits",learner="learner-1",kind="consumed"}': "0+0.5x20",
            'collective_privacy_epsilon{namespace="lab",task="digits",learner="learner-1",kind="target"}': "4x8 20x20",
        },
        quiet="7m",
        fires="8m",
        resolved="10m",
        labels={"namespace": "lab", "task": "digits", "learner": "learner-1"},
        summary="learner-1 of lab/digits has spent 100% of its privacy budget.",
    ),
    "CollectiveCheckpointFailing": Case(
        {
            f'collective_task_condition{{{TASK},type="Failed",status="False",reason="NotFinished"}}': "1x5 stale",
            f'collective_task_condition{{{TASK},type="Failed",status="True",reason="StorageFailed"}}': "_x5 1x10 stale",
        },
        quiet="3m",
        fires="8m",
        resolved="25m",
        labels={"namespace": "lab", "name": "digits", "reason": "StorageFailed"},
        summary="Task lab/digits has failed, because its checkpoint could not be kept (StorageFailed).",
    ),
    "CollectiveCheckpointSlow": Case(
        {
            f'collective_checkpoint_duration_seconds_bucket{{namespace="lab",task="digits",le="{le}"}}': count
            for le, count in (("10", "0x40 0+1x40"), ("60", "0+1x80"), ("+Inf", "0+1x80"))
        },
        quiet="10m",
        fires="30m",
        resolved="70m",
        labels={"namespace": "lab", "task": "digits"},
        summary="Checkpoints of lab/digits take 57.5s.",
    ),
}


@pytest.fixture(scope="module")
def promtool() -> str:
    return find("promtool")


def test_the_rules_are_valid(promtool: str) -> None:
    command = [promtool, "check", "rules", str(ALERTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted(RULES)


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_and_resolves(alert: str, promtool: str, tmp_path: Path) -> None:
    case, rule = CASES[alert], RULES[alert]
    link = rule["annotations"]["dashboard_url"]
    for label, value in case.labels.items():
        link = link.replace(f"{{{{ $labels.{label} }}}}", value)
    expected = {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": {**rule["annotations"], "summary": case.summary, "dashboard_url": link},
    }
    told = [(case.quiet, []), (case.fires, [expected]), (case.resolved, [])]
    tests = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {"eval_time": time, "alertname": alert, "exp_alerts": alerts} for time, alerts in told
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps(tests))
    command = [promtool, "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_opens_the_dashboard_of_what_it_tells_of() -> None:
    for name, rule in RULES.items():
        by = [label for label in ("task", "name") if label in CASES[name].labels]
        told = (
            f"-task?var-namespace={{{{ $labels.namespace }}}}&var-task={{{{ $labels.{by[0]} }}}}" if by else "-platform"
        )
        assert rule["annotations"]["dashboard_url"] == f"/d/collective{told}", name


def test_every_alert_has_a_runbook() -> None:
    """And every runbook an alert; the link is the heading's anchor."""
    text = (ROOT / "docs" / "runbooks.md").read_text()
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == list(RULES)
    links = [rule["annotations"]["runbook_url"] for rule in RULES.values()]
    assert links == [f"docs/runbooks.md#{heading.lower()}" for heading in headings]
    assert {rule["labels"]["severity"] for rule in RULES.values()} <= {"critical", "warning", "info"}
