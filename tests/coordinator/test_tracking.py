"""Rounds on a real MLflow server, and in event files that TensorBoard's own reader reads: each exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ..ports import free_port
from .stores import Line, line

pytestmark = pytest.mark.timeout(300)  # MLflow's server alone may take a minute to begin, on a machine that is busy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """MLflow's own server, as its command line starts it, with SQLite behind it."""
    for module in ("mlflow", "sqlalchemy", "flask", "gunicorn"):
        pytest.importorskip(module, reason="needs the extra dev")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += ["--backend-store-uri=sqlite:///runs.db", "--artifacts-destination=artifacts"]
    # The one of several servers that needs no pandas; what it runs is the same.
    command += ["--gunicorn-opts=--threads 4 --no-control-socket"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 200
        while not _healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.fixture
def mlflow(server: int) -> Iterator[tuple[str, Line]]:
    with line(server) as opened:
        yield f"http://127.0.0.1:{opened.port}", opened


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def runs_of(port: int, uid: str) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("default/plain")
    filtered = f"tags.`collective.uid` = '{uid}'"
    return client, list(client.search_runs([experiment.experiment_id], filter_string=filtered))


def followed(learners: Any, coordinated: Any, *, uid: str, rounds: int, policy: Any = None, **result: str) -> Any:
    task = coordinated(learners, rounds=rounds, policy=policy or {}, result={"formats": ["safetensors"], **result})
    task.config["task"]["uid"] = uid
    return task


def test_a_task_is_one_run_with_every_round_once_whoever_is_killed(
    plain, coordinated, server, mlflow, wait_until, tmp_path
):
    url, opened = mlflow
    opened.mode = "refuse"
    events = tmp_path / "events"
    task = followed(
        plain(*[{"extensions": True, "train_s": 0.1}] * 2),
        coordinated,
        uid="uid-killed",
        rounds=100_000,
        mlflow=url,
        tensorBoard=str(events),
    )
    process = task.start()
    wait_until(lambda: "mlflow: " in task.log, "word of a tracker that takes nothing")
    assert 'collective_tracking_errors_total{tracker="mlflow"}' in task.get("/metrics")
    decided = len(task.records())
    wait_until(lambda: len(task.records()) > decided, "rounds that go on")
    opened.mode = "forward"
    wait_until(lambda: list(events.glob("*")) and "mlflow takes rounds again" in task.log, "trackers that take them")
    assert task.log.count("WARNING collective_coordinator.tracking") == 1, "it is told once"
    process.kill()
    process.wait(60)
    rounds = task.config["rounds"] = len(task.records()) + 3
    verdict = task.run()
    assert (verdict["phase"], verdict["message"]) == ("Complete", f"All {rounds} rounds are decided"), task.log
    client, runs = runs_of(server, "uid-killed")
    (run,) = runs
    assert (run.info.status, run.info.run_name) == ("FINISHED", "plain")
    assert run.data.params["strategy.type"] == "Vote" and run.data.params["rounds"] == "100000"
    records = task.records()
    means = [sum(record["testScores"].values()) / 2 for record in records]
    told = client.get_metric_history(run.info.run_id, "test_score")
    assert [metric.step for metric in told] == list(range(1, rounds + 1))
    assert [metric.value for metric in told] == pytest.approx(means)
    assert {"round", "accepted", "vote_score/learner-0", "seconds/propose"} <= run.data.metrics.keys()
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"rounds.jsonl", "model.bin", "best-model.bin", "model-card.md"}
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    written = accumulator.EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
    assert {"test_score", "vote_score/learner-1", "accepted"} <= set(written.Tags()["scalars"])
    scalars = written.Scalars("test_score")
    assert [scalar.step for scalar in scalars] == list(range(1, rounds + 1))
    assert [scalar.value for scalar in scalars] == pytest.approx(means)
    assert len(list(events.glob("*"))) == 2, "each start writes a file of its own"


def test_a_server_that_says_nothing_costs_no_round_and_little_time(plain, coordinated):
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    with line(9) as opened:
        opened.mode = "silent"
        url = f"http://127.0.0.1:{opened.port}"
        task = followed(plain({}), coordinated, uid="u", rounds=4, mlflow=url, policy={"roundTimeoutSeconds": 3})
        verdict = task.run()
    assert (verdict["phase"], verdict["round"]["current"]) == ("Complete", 4)
    assert "; mlflow did not take everything: it was not done within 3 s" in verdict["message"]
