"""Imports the modules whose registrations a learner serves: built-in tasks, those of packages, a user's own by name.

A user's module that does not import is the most frequent reason for a learner that does not start, so its error says
which module, what, and where, in the few lines that a person reads. The process then ends with a status of its own: to
start it again cannot help, and who runs it can tell.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from collective_learner.registration import RegistrationError
from collective_learner.tasks import load_builtin_tasks

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_logger = logging.getLogger(__name__)

IMPORT_FAILED = 78
"""The exit status of a learner whose modules cannot be imported; EX_CONFIG of sysexits.h, and the operator knows it."""

ENTRY_POINTS = "collective.tasks"
"""The group of entry points by which an installed package offers modules that register models and data loaders."""

_SHOWN_FRAMES = 3


class ImportFailedError(Exception):
    """A module with registrations could not be imported; the message is for a person."""


def import_tasks(modules: Iterable[str], *, code: str | None = None) -> None:
    """Import the built-in tasks, then what installed packages offer, then these modules, in order.

    Parameters
    ----------
    modules
        Importable names; also found in `code` and in the working directory.
    code
        A folder with modules.

    Raises
    ------
    ImportFailedError
        One of them raised, whatever it was.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415 - a server that answers first does without

    load_builtin_tasks()
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: (entry.name, entry.value)):
        _import(f"entry point {entry.name} = {entry.value}{_of(entry)}", entry.load)
    # Last: what is there must not shadow the standard library.
    sys.path += [folder for folder in (code, os.getcwd()) if folder and folder not in sys.path]
    for module in modules:
        import_module(module)


def import_module(module: str) -> None:
    """Import one module by its name.

    Raises
    ------
    ImportFailedError
        It raised, whatever it was, or that is no name of a module.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise ImportFailedError(f"--import {module!r}: no name of a module, such as my_module or my_package.my_module")
    _import(f"--import {module}", lambda: importlib.import_module(module))


def _import(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except RegistrationError as error:
        raise ImportFailedError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ImportFailedError(_told(what, error)) from error
    _logger.info("imported %s", what.removeprefix("--import "))


def _of(entry: EntryPoint) -> str:
    return f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def _told(module: str, error: BaseException) -> str:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    lines = "".join(traceback.format_list(frames[-_SHOWN_FRAMES:]))
    return f"{module} failed: {what}" + (f"\n{lines.rstrip()}" if lines else "")
