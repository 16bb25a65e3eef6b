"""Keras runs in processes of its own: TensorFlow and PyTorch do not share one in these tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs the extra `keras`")
CASES = Path(__file__).with_name("keras_cases")


@pytest.mark.slow
def test_the_cases_of_keras_on_tensorflow() -> None:
    """Run the cases in `keras_cases`, all in one process, since importing TensorFlow takes longer than most of them."""
    files = sorted(map(str, CASES.glob("*_cases.py")))
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--durations=5", *files],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
