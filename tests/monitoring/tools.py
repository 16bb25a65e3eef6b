"""Prometheus and promtool, as Debian's package `prometheus` has them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "collective-operator"
ALERTS = CHART / "alerts.yaml"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))


def find(name: str) -> str:
    """Find a program; where there is none, the test skips, and fails in CI."""
    found = shutil.which(name)
    if found is None:
        how = f"{name} is not on PATH: install Debian's package `prometheus`"
        pytest.fail(how) if os.environ.get("CI") == "true" else pytest.skip(how)
    return found
