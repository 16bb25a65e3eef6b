"""A short run of the chaos, and that it notices what it is there to notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).parent
SEED = os.environ.get("CHAOS_SEED", "20")


def chaos(*arguments: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = [str(packages)] if packages else []
    path += filter(None, [os.environ.get("PYTHONPATH")])
    return subprocess.run(
        [sys.executable, str(HERE), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )


def test_nothing_is_lost_and_nothing_is_applied_twice():
    run = chaos("--seed", SEED, "--kills", "30", "--rounds", "300")
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr


SABOTAGE = {
    "a decision that is not kept before it is told": (
        "collective_coordinator/checkpoint.py",
        "        write_durably(self._path(snapshot.round), self._encode(snapshot))\n",
        "        if snapshot.round % 4 == 0:\n"
        "            write_durably(self._path(snapshot.round), self._encode(snapshot))\n",
    ),
    "a restart that forgets the last decision": (
        "collective_coordinator/checkpoint.py",
        "        return usable\n",
        "        return usable[1:] or usable\n",
    ),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_it_notices(tmp_path, what):
    """The same chaos on a coordinator with a bug must not pass."""
    import collective_coordinator

    package = Path(collective_coordinator.__file__).parent
    shutil.copytree(package, tmp_path / "collective_coordinator", ignore=shutil.ignore_patterns("__pycache__"))
    name, old, new = SABOTAGE[what]
    source = (tmp_path / name).read_text()
    assert source.count(old) == 1, "the sabotage no longer fits the source"
    (tmp_path / name).write_text(source.replace(old, new))
    run = chaos("--seed", "3", "--kills", "8", "--rounds", "40", packages=tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "broke a rule" in run.stdout
