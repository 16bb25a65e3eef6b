"""The built-in tasks, imported only where their framework is installed.

A learner with scikit-learn alone offers scikit-learn's tasks, and does not fail over the others.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging

BUILTIN: dict[str, tuple[str, ...]] = {
    "digits": ("sklearn",),
    "breast_cancer": ("sklearn",),
    "digits_torch": ("sklearn", "torch"),
    "breast_cancer_torch": ("sklearn", "torch"),
    "digits_keras": ("sklearn", "keras"),
    "fraud": ("sklearn",),
    "mnist_keras": ("keras",),
    "cifar10_keras": ("keras",),
    "xray_torch": ("torch",),
}
"""Modules of this package, and the top-level packages that each needs."""

_logger = logging.getLogger(__name__)


def load_builtin_tasks() -> list[str]:
    """Import every built-in task whose framework is installed.

    Returns
    -------
    list[str]
        The names of the modules that were imported.
    """
    loaded = []
    for name, needed in BUILTIN.items():
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        if missing:
            _logger.debug("the tasks in %s are left out: %s is not installed", name, ", ".join(missing))
            continue
        importlib.import_module(f"{__name__}.{name}")
        loaded.append(name)
    return loaded
