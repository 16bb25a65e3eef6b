"""Keras runs in processes of its own: TensorFlow and PyTorch do not share one in these tests."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs the extra `keras`"),
    pytest.mark.timeout(900),
]
CASES = Path(__file__).with_name("keras_cases")
TOGETHER = {
    "learner": ["learner", "proximal", "limit", "weight", "argument"],
    "private": ["private", "clipping", "private_refusal"],
    "tasks": ["tasks"],
}
"""The files of cases that share a process."""


@pytest.mark.slow
@pytest.mark.parametrize("cases", TOGETHER)
def test_the_cases_of_keras_on_tensorflow(cases: str) -> None:
    """Run files of cases in one process, since importing TensorFlow takes longer than most of them."""
    files = [str(CASES / f"{name}_cases.py") for name in TOGETHER[cases]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *files],
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
        # A test that served in this process has said there that no folder is given.
        env={name: value for name, value in os.environ.items() if name != "COLLECTIVE_STATE_DIR"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra `torch`")
def test_a_learner_with_keras_on_pytorch_keeps_the_same_promises() -> None:
    done = subprocess.run(
        [sys.executable, str(CASES / "on_torch.py")], capture_output=True, text=True, timeout=840, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["backend"] == "torch"
    assert all(found["same"]), found
    assert found["bytes"]
    assert found["vote"]
    assert found["score"]
    assert found["examples"] == 50
    assert found["counted"] == 4 * 4 * 16  # batches of four epochs
    assert found["private"] == "diff_priv_config: Keras runs on torch, TensorFlow is needed for it"
    assert found["distances"] == sorted(found["distances"], reverse=True)
    assert found["distances"][-1] < 0.8 * found["distances"][0]
