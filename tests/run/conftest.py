from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collective_operator.cluster.local import LocalCluster
from collective_operator.cluster.local_pod import Backoff, PodSettings
from collective_operator.cluster.local_process import Guard

from .pods import PROGRAM, local_cluster
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


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-in importable for processes of this test, which inherit no bound on their threads."""
    (tmp_path / "stand_in.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
async def cluster(program: None, tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One that restarts, probes and gives up soon."""
    guard = Guard()
    settings = PodSettings(backoff=Backoff(first_s=0.05, ceiling_s=0.2), probe_period_s=0.02, grace_s=1)
    cluster = local_cluster(tmp_path / "run", guard, settings)
    yield cluster
    await asyncio.wait_for(cluster.close(), 60)
    guard.close()
