"""Rounds as a run of MLflow's: one run a task, found again by the task's uid after every restart.

The server itself remembers how far it has been told, in the metric ``round``, which comes in one batch with the values
that it is of; so nothing is told twice, nor lost, whoever was killed in between.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collective_coordinator.tracking.series import Row

UID = "collective.uid"
_MOST_METRICS = 1000
"""That a server takes in one batch."""
_MOST_TEXT = 500
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_FILE_TIMEOUT_S = "600"
"""For a file: a server may bring it to a store of its own before it answers."""
_ENVIRONMENT = {
    # The follower tries again by itself, and is watched meanwhile.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    _TIMEOUT: "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class MlflowSink:
    """A run on a tracking server."""

    def __init__(self, *, url: str, namespace: str, name: str, uid: str, params: dict[str, Any]) -> None:
        self._timeouts_are_ours = _TIMEOUT not in os.environ
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient  # noqa: PLC0415 - an optional extra

        self._client = MlflowClient(tracking_uri=url)
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"{namespace}/{name}"
        self._name = name
        self._tags = {UID: (uid or f"{namespace}/{name}").replace("'", ""), "collective.task": f"{namespace}/{name}"}
        self._params = params
        self._run = ""

    def open(self) -> int:
        """Find the task's run, or begin it; tell the last round that it has."""
        if self._timeouts_are_ours:
            os.environ[_TIMEOUT] = _ENVIRONMENT[_TIMEOUT]
        experiment = self._client.get_experiment_by_name(self._experiment)
        home = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        found = self._client.search_runs([home], filter_string=f"tags.`{UID}` = '{self._tags[UID]}'", max_results=1)
        run = found[0] if found else self._client.create_run(home, tags=self._tags, run_name=self._name)
        self._run = run.info.run_id
        if not run.data.params:
            self._client.log_batch(self._run, params=list(self._written_params()))
        if run.info.status != "RUNNING":
            self._client.update_run(self._run, status="RUNNING")
        return int(run.data.metrics.get("round", 0))

    def log(self, rows: Sequence[Row]) -> None:
        """Tell of rounds, each of them whole."""
        from mlflow.entities import Metric  # noqa: PLC0415 - an optional extra

        now = int(time.time() * 1000)
        batch: list[Metric] = []
        for number, values in rows:
            metrics = [Metric(key, value, now, number) for key, value in values.items()]
            metrics.append(Metric("round", float(number), now, number))
            if len(batch) + len(metrics) > _MOST_METRICS:
                self._client.log_batch(self._run, metrics=batch)
                batch = []
            batch += metrics
        self._client.log_batch(self._run, metrics=batch)

    def rest(self) -> None:
        """Do nothing: what was told is there."""

    def end(self, status: str, files: Sequence[Path]) -> Iterator[str]:
        """End the run, with the files of the result; yields the name of each that has arrived."""
        self._client.set_terminated(self._run, status=status)
        if self._timeouts_are_ours:
            os.environ[_TIMEOUT] = _FILE_TIMEOUT_S
        for path in files:
            self._client.log_artifact(self._run, str(path))
            yield path.name

    def _written_params(self) -> Iterator[Any]:
        from mlflow.entities import Param  # noqa: PLC0415 - an optional extra

        for name, value in list(self._params.items())[:100]:
            yield Param(re.sub(r"[^\w\-. /]", "_", name)[:250], str(value)[:_MOST_TEXT])
