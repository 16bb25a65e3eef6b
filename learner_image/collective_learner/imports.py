"""Imports the modules whose registrations a learner serves: the built-in tasks, and a user's own by name.

A user's module that does not import is the most frequent reason for a learner that does not start, so its error says
which module, what, and where, in the few lines that a person reads.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterable

from collective_learner.registration import RegistrationError
from collective_learner.tasks import load_builtin_tasks

_logger = logging.getLogger(__name__)

_SHOWN_FRAMES = 3


class ImportFailedError(Exception):
    """A module named by ``--import`` could not be imported; the message is for a person."""


def import_tasks(modules: Iterable[str]) -> None:
    """Import the built-in tasks, then these modules, in order.

    Parameters
    ----------
    modules
        Importable names; also found in the working directory, which is searched last.

    Raises
    ------
    ImportFailedError
        One of them raised, whatever it was.
    """
    load_builtin_tasks()
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: what is there must not shadow the standard library
    for module in modules:
        try:
            importlib.import_module(module)
        except RegistrationError as error:
            raise ImportFailedError(f"--import {module}: {error}") from error
        except (Exception, SystemExit) as error:
            raise ImportFailedError(_told(module, error)) from error
        _logger.info("imported %s", module)


def _told(module: str, error: BaseException) -> str:
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    lines = "".join(traceback.format_list(frames[-_SHOWN_FRAMES:]))
    return f"--import {module} failed: {what}" + (f"\n{lines.rstrip()}" if lines else "")
