"""What tests of learners share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for models that several files of tests train


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Train small models without threads, which on a busy machine wait for each other most of the time."""
    with pytest.importorskip("threadpoolctl").threadpool_limits(limits=1):
        yield
