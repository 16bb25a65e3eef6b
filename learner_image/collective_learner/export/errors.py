"""What export and prediction say when they do not do what was asked: one line for a person."""

from __future__ import annotations

import importlib
from typing import Any


class ExportError(Exception):
    """A model cannot be exported, and why; the model itself is as it was."""


class NotThereError(ValueError):
    """What was given to work on cannot be used; the message names it, and what is wanted."""


def needed(module: str, *, what: str) -> Any:
    """Import a module of the extra `onnx`.

    Raises
    ------
    ExportError
        It is not installed; the message says what brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        package = (missing.name or module).partition(".")[0]
        raise ExportError(
            f"{what} needs {package}, which is not installed: pip install 'collective-operator[onnx]'"
        ) from missing


def first_line(error: BaseException) -> str:
    """Tell an error of a framework in one line: that of the innermost cause, which names what is in the way."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
