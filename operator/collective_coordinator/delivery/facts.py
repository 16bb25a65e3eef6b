"""The essentials of a task, for whoever gets the model: what it was to do, and nothing that is somebody's secret.

Where data lie is left out, and so are all texts among a data loader's parameters, which may be paths or keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from collective_coordinator.config import Config

_CHUNK = 4 << 20


@dataclass(frozen=True, kw_only=True)
class FileFact:
    """One file of the result."""

    name: str
    size: int
    sha256: str


def essentials(config: Config) -> dict[str, Any]:
    """Tell what a task was to do, as its file says it, with defaults filled in."""
    strategy, stop = config.strategy, config.stop
    how: dict[str, Any] = {"type": strategy.type}
    if strategy.type == "Vote":
        how["threshold"] = float(strategy.threshold)
    if strategy.type in ("FedAvg", "FedProx", "FedOpt"):
        how |= {"fraction": float(strategy.fraction), "aggregation": strategy.aggregation}
    if strategy.type == "FedProx":
        how["mu"] = strategy.mu
    if strategy.optimizer is not None:
        how["optimizer"] = strategy.optimizer.method
    if strategy.gate is not None:
        how["gate"] = float(strategy.gate)
    ends = {"testScore": stop.test_score, "patience": stop.patience}
    return {
        "model": {"name": config.model.name, "parameters": dict(config.model.parameters)},
        "dataLoader": {"name": config.data_loader.name, "parameters": _numbers(config.data_loader.parameters)},
        "rounds": config.rounds,
        "seed": config.seed,
        "strategy": how,
        **({"stop": kept} if (kept := {key: value for key, value in ends.items() if value is not None}) else {}),
        "learners": len(config.learners),
        "minLearners": config.policy.min_learners,
    }


def flattened(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Give what is nested one name each: ``strategy.type``."""
    flat: dict[str, Any] = {}
    for key, member in value.items():
        name = f"{path}.{key}" if path else str(key)
        flat |= flattened(member, name) if isinstance(member, Mapping) else {name: member}
    return flat


def file_facts(directory: Path, names: Iterable[str]) -> list[FileFact]:
    """Measure files, each once, whatever its names; blocks for as long as it takes to read them."""
    known: dict[tuple[int, int], str] = {}
    found = []
    for name in names:
        path = directory / name
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
        if inode not in known:
            known[inode] = _sha256(path)
        found.append(FileFact(name=name, size=status.st_size, sha256=known[inode]))
    return found


def version() -> str:
    """Tell this project's version; empty where it was not installed."""
    try:
        return metadata.version("collective-operator")
    except metadata.PackageNotFoundError:
        return ""


def _numbers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if isinstance(value, (bool, int, float))}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
