"""Learners: the Machine Learning Interface, its gRPC server and client, and adapters for the frameworks.

Importing this package imports nothing else: every name below is loaded when it is first used, so that a program that
only needs the wire does not pay for numpy, and one that needs a framework pays for that one alone.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "client": ("GRPCLearnerClient",),
    "connection": ("LearnerCallError",),
    "factory": ("DefaultMliFactory", "FactoryRegistry", "MliFactory", "SetupRefusedError"),
    "mli": (
        "ColearnModel",
        "DiffPrivBudget",
        "DiffPrivConfig",
        "ErrorCodes",
        "MachineLearningInterface",
        "ModelFormat",
        "OptionRefusedError",
        "ProposedWeights",
        "TrainingDivergedError",
        "TrainingOptions",
        "TrainingStoppedError",
        "TrainingSummary",
        "Weights",
    ),
    "images": ("normalize_img",),
    "learners.keras": ("KerasLearner",),
    "learners.sklearn": ("SklearnLearner",),
    "learners.torch": ("PytorchLearner",),
    "local_rounds": ("collective_learning_round", "initial_result", "set_equal_weights"),
    "plots": ("CollectivePlot", "plot_results", "plot_votes"),
    "registration": ("RegistrationError",),
    "results": ("Result", "Results", "print_results"),
    "server": ("GRPCServer",),
    "tls": ("TlsError", "TlsFiles"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - computed, so that a name stands in one place


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
