"""What code made a figure: figures of two versions, or of two checkouts, are not comparable.

Only the code that decides them counts: a learner for another framework, or a strategy that is not compared, leaves them
as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import collective_coordinator.aggregation
import collective_coordinator.strategies
import collective_learner.learners
import collective_learner.tasks
from collective_coordinator.config import StrategySpec

from .methods import Alone, Centralised, Method
from .sites import Setting

Compared = Method | Alone | Centralised
ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {package: version(package) for package in ("numpy", "scikit-learn", "torch")}
_DECISIVE = {
    collective_coordinator.aggregation: ("backtrack", "layout", "reduce", "server", "stream"),
    collective_coordinator.strategies: ("cyclic", "fedavg", "fedopt", "fedprox", "gate", "held", "vote"),
    collective_learner.learners: (
        "checks", "common", "sklearn", "sklearn_arrays", "sklearn_data", "sklearn_kind", "sklearn_proximal", "steered",
        "torch", "torch_keep", "torch_state",
    ),
    collective_learner.tasks: ("breast_cancer", "data", "digits", "digits_torch", "networks"),
}  # fmt: skip
_OURS = ("methods", "rounds", "sites")


def digest_code(settings: Mapping[str, Setting], methods: Sequence[Compared]) -> str:
    """Digest what decides the figures: the methods and what they run, the settings, and this comparison.

    Raises
    ------
    SystemExit
        The packages are another checkout's.
    """
    digest = hashlib.sha256()
    for package, names in _DECISIVE.items():
        root = Path(package.__file__ or "").resolve().parent
        if not root.is_relative_to(ROOT):
            raise SystemExit(f"{package.__name__} comes from {root}, not from {ROOT}; install this checkout first")
        for name in names:
            digest.update(f"{name}\0".encode() + (root / f"{name}.py").read_bytes())
    digest.update("".join((ROOT / f"tests/quality/{name}.py").read_text() for name in _OURS).encode())
    digest.update(repr((settings, [_options(method) for method in methods], VERSIONS)).encode())
    return digest.hexdigest()[:12]


def _options(method: Compared) -> list[Any]:
    """Give what a method is told, the product's defaults among it; options of methods that are not compared are not."""
    if not isinstance(method, Method):
        return [method]
    unset = vars(StrategySpec())
    told = {name: value for name, value in vars(method.strategy).items() if value != unset.get(name)}
    return [method.name, method.epochs, sorted(told.items())]
