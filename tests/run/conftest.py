from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .runs import Run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start `collective run` in this test's folder; whatever happens, it ends with the test."""
    started: list[Run] = []

    def begin(*arguments: object, **options: Any) -> Run:
        started.append(Run(*arguments, cwd=tmp_path, **options))
        return started[-1]

    yield begin
    for run in started:
        run.end()
