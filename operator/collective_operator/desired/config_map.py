"""The coordinator's configuration: all that it will know of its task.

Pods come and go behind the addresses that it names.  When the task gets more or fewer learners it is written anew, and
a coordinator that runs sees that in the file that it mounts.
"""

from __future__ import annotations

import json
from typing import Any

from collective_operator.api import CollectiveTask, rules
from collective_operator.api.base import Part
from collective_operator.api.strategy import Strategy, TrimmedMean
from collective_operator.api.task import Result
from collective_operator.desired import names
from collective_operator.desired.metadata import metadata
from collective_operator.desired.platform import Platform

CONFIG_KEY = "coordinator.json"
CONFIG_VERSION = 1


def coordinator_config(task: CollectiveTask, platform: Platform) -> dict[str, Any]:
    """Build what the coordinator reads: plain JSON, its version first."""
    spec = task.spec
    return {
        "version": CONFIG_VERSION,
        "task": {
            "namespace": task.namespace,
            "name": task.name,
            "uid": task.uid,
            **({"retry": task.retry} if task.retry else {}),
        },
        "model": {"name": spec.model.name, "parameters": spec.model.parameters},
        "dataLoader": {"name": spec.data_loader.name, "parameters": spec.data_loader.parameters},
        "rounds": spec.rounds,
        "seed": spec.seed,
        "strategy": _strategy(spec.strategy),
        **({"stop": _written(spec.stop)} if spec.stop else {}),
        "learners": [
            {
                "name": f"{names.LEARNER}-{index}",
                "address": platform.learner_endpoint(task, index).address,
                "location": spec.learners.learner(index).location,
            }
            for index in range(spec.learners.size)
        ],
        "policy": {
            "minLearners": task.min_learners,
            "roundTimeoutSeconds": spec.policy.round_timeout_seconds,
            "preRunningDeadlineSeconds": spec.policy.pre_running_deadline_seconds,
        },
        "result": _result(spec.result),
    }


def _result(result: Result) -> dict[str, Any]:
    """Write what becomes of the model; the Secret is for the pod alone."""
    places = {"location": result.location, "mlflow": result.mlflow, "tensorBoard": result.tensor_board}
    return {"formats": list(result.formats), **{name: place for name, place in places.items() if place is not None}}


def _strategy(strategy: Strategy) -> dict[str, Any]:
    """Write the strategy with its defaults, all but those that only the coordinator can know."""
    written: dict[str, Any] = {"type": strategy.type}
    if strategy.chosen is not None:
        written[f"{strategy.type[0].lower()}{strategy.type[1:]}"] = _written(strategy.chosen)
    if strategy.type in rules.AVERAGING:
        written["aggregation"] = strategy.aggregation or "Mean"
    if strategy.aggregation == "TrimmedMean":
        written["trimmedMean"] = _written(strategy.trimmed_mean or TrimmedMean())
    if strategy.gate is not None:
        written["gate"] = _written(strategy.gate)
    return written


def _written(part: Part) -> dict[str, Any]:
    return part.model_dump(by_alias=True, exclude_none=True)


def config_map(task: CollectiveTask, platform: Platform) -> dict[str, Any]:
    """Build the ConfigMap that the coordinator's pod mounts."""
    about = metadata(task, name=names.coordinator(task.name), component=names.COORDINATOR)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**about, "annotations": {names.IMAGE_ANNOTATION: platform.coordinator_image}},
        "data": {CONFIG_KEY: json.dumps(coordinator_config(task, platform), indent=1, allow_nan=False)},
    }
