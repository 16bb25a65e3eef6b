"""What holds for every test: properties are judged by what is true, not by how fast a busy machine finds out.

And which files begin first.  A file is one worker's, so a long one that begins last keeps all others waiting; xdist by
itself begins with the files of the most tests, which are the quickest.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("collective", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("collective")

HERE = Path(__file__).parent
LONG = (
    "learner/test_keras.py",
    "run/test_examples.py",
    "cluster/test_resilience.py",
    "run/test_small_runs.py",
    "run/test_tutorials.py",
    "monitoring/test_scrape.py",
    "cluster/test_broken_ways.py",
    "learner/learners/test_torch_together.py",
    "learner/export/test_keras_export.py",
    "learner/test_several_devices.py",
    "learner/test_copies.py",
    "repository/test_extras.py",
    "chaos/test_chaos.py",
    "quality/test_quality.py",
    "coordinator/test_delivery.py",
    "coordinator/test_tracking.py",
    "documents/test_ports.py",
    "release/test_release.py",
)
"""Files that take half a minute or more, the longest first; `--durations=0` tells."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    order = {HERE / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
