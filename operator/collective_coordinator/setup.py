"""What one learner is asked to set up: the task's model and data, its own location, and the common seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from collective_coordinator.config import Component, Config, LearnerSpec
from collective_learner.wire import interface_pb2 as pb


class _Spec(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def default_parameters(self) -> str: ...


def setup_request(config: Config, learner: LearnerSpec, supported: pb.ResponseSupportedSystem) -> pb.RequestMLSetup:
    """Build a learner's MLSetup.

    The seed is the same for all (shards must be disjoint, first weights equal). Beside the request's own field it
    goes into the parameters where the learner declares one called ``seed`` that the task does not set.
    """
    loader = _parameters(config.data_loader, supported.data_loaders, config.seed)
    if learner.location is not None:
        loader["location"] = learner.location
    return pb.RequestMLSetup(
        dataset_loader_name=config.data_loader.name,
        dataset_loader_parameters=json.dumps(loader),
        model_arch_name=config.model.name,
        model_parameters=json.dumps(_parameters(config.model, supported.model_architectures, config.seed)),
        seed=config.seed,
    )


def _parameters(component: Component, specs: Iterable[_Spec], seed: int | None) -> dict[str, Any]:
    parameters = dict(component.parameters)
    declared = next((spec.default_parameters for spec in specs if spec.name == component.name), "")
    if seed is not None and "seed" not in parameters and "seed" in _object(declared):
        parameters["seed"] = seed
    return parameters


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
