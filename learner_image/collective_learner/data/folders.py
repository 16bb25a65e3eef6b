"""Writes a folder all at once: whoever finds it finds it whole, and nothing that was there is written over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collective_learner.data.places import DataRefusedError


@contextmanager
def written_at_once(folder: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes `folder` if all goes well, and else is gone.

    Raises
    ------
    DataRefusedError
        There is something at `folder` already, other than an empty folder, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataRefusedError(f"{folder}: there is something already; a new or an empty folder is needed")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise DataRefusedError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        aside.replace(folder)
    except OSError as error:  # a full disk, or a source that breaks off
        raise DataRefusedError(f"{folder}: cannot be written whole: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
