"""What is registered, for a person or a program to read: the answer of ``collective check``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from collective_learner.factory import FactoryRegistry
from collective_learner.registration import Registered, describe

DATA_LOADER, MODEL = "data loader", "model"

Found = Mapping[tuple[str, str], Registered]
"""By kind and name."""


def registered(registry: type[FactoryRegistry]) -> dict[tuple[str, str], Registered]:
    """List what a registry holds now."""
    return {
        **{(DATA_LOADER, tag): item for tag, item in registry.dataloaders.items()},
        **{(MODEL, tag): item for tag, item in registry.model_architectures.items()},
    }


def as_document(found: Found) -> dict[str, Any]:
    """Write it as a probe has it: default parameters by name, and the data loaders of each model."""
    return {
        "compatibilities": {tag: sorted(item.data_loaders) for (kind, tag), item in found.items() if kind == MODEL},
        "data_loaders": {tag: dict(item.defaults) for (kind, tag), item in found.items() if kind == DATA_LOADER},
        "model_architectures": {tag: dict(item.defaults) for (kind, tag), item in found.items() if kind == MODEL},
    }


def as_text(found: Found) -> str:
    """Write it as lines: each name, its parameters with their defaults, and where its function stands."""
    lines = []
    for (kind, tag), item in sorted(found.items()):
        on = f" on {', '.join(sorted(item.data_loaders))}" if item.data_loaders else ""
        function, where = describe(item.function)
        lines.append(f"{kind} {tag}{on}: {function} ({where})")
        lines += [f"  {name} = {json.dumps(default)}" for name, default in item.defaults.items()]
    return "\n".join(lines) or "nothing is registered"
