"""The ledger of what is spent: kept before anything is, found again, and refused where it is not to be trusted."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collective_learner.environment import STATE_DIR
from collective_learner.privacy import ledger as module
from collective_learner.privacy.charge import Charge
from collective_learner.privacy.ledger import BEGUN, NAME, Ledger, LedgerError, open_ledger

PLANNED = Charge(noise_multiplier=1.5, sample_rate=0.25, steps=10)


def spent(folder: Path) -> list[list[float]]:
    return json.loads((folder / NAME).read_bytes().split(b"\n", 1)[1])["charges"]


def train(ledger: Ledger, planned: Charge = PLANNED, *, steps: int | None = None) -> None:
    with ledger.charged(planned) as taken:
        for _ in range(planned.steps if steps is None else steps):
            taken.step()


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A folder in which one training was charged."""
    ledger = open_ledger(tmp_path, data="data")
    train(ledger)
    ledger.close()
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_open():
    gc.collect()
    module._open.clear()
    yield
    gc.collect()
    module._open.clear()


def test_what_is_spent_is_found_again_and_adds_up(used: Path) -> None:
    again = open_ledger(used, data="data")
    assert again.charges == (PLANNED,)
    train(again)
    other = Charge(noise_multiplier=2.0, sample_rate=0.25, steps=3)
    train(again, other)
    again.close()
    assert Ledger(data="data", folder=used).charges == (
        Charge(noise_multiplier=1.5, sample_rate=0.25, steps=20),
        other,
    )


def test_it_is_charged_before_the_first_step_and_what_was_not_taken_is_given_back(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, data="data")
    with pytest.raises(InterruptedError), ledger.charged(PLANNED) as taken:
        assert spent(tmp_path) == [[1.5, 0.25, 10]]
        taken.step()
        taken.step()
        raise InterruptedError
    assert spent(tmp_path) == [[1.5, 0.25, 2]]
    train(ledger, steps=0)
    assert spent(tmp_path) == [[1.5, 0.25, 2]]


def test_who_is_killed_gets_nothing_back(tmp_path: Path) -> None:
    script = f"""
import os
from collective_learner.privacy.charge import Charge
from collective_learner.privacy.ledger import open_ledger
with open_ledger({str(tmp_path)!r}, data="data").charged(Charge(**{vars(PLANNED)!r})) as taken:
    taken.step()
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 9
    assert open_ledger(tmp_path, data="data").charges == (PLANNED,)


def test_no_step_is_taken_that_was_not_charged() -> None:
    with pytest.raises(RuntimeError, match="more than the 10"):
        train(Ledger(data="data"), steps=11)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"10", b"01")),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"ledger 1", b"ledger 2")),
        lambda path: path.write_bytes(b"\0" * len(path.read_bytes())),
        lambda path: path.unlink(),
    ],
    ids=["torn", "changed", "empty", "newer", "zeros", "missing"],
)
def test_a_ledger_that_cannot_be_trusted_is_refused_and_left_as_it_is(used: Path, harm) -> None:
    harm(used / NAME)
    before = (used / NAME).read_bytes() if (used / NAME).exists() else None
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"privacy: .*privacy\.ledger"):
            open_ledger(used, data="data")
    assert before == ((used / NAME).read_bytes() if (used / NAME).exists() else None)


def test_a_crash_right_after_the_first_ledger_is_no_loss(tmp_path: Path) -> None:
    Ledger(data="data", folder=tmp_path).close()
    (tmp_path / BEGUN).unlink()
    (tmp_path / f".{NAME}.tmp").write_bytes(b"half a led")
    train(open_ledger(tmp_path, data="data"))
    assert (tmp_path / BEGUN).exists()
    assert spent(tmp_path) == [[1.5, 0.25, 10]]


def test_other_data_is_refused(used: Path) -> None:
    with pytest.raises(LedgerError, match=r"about other data \(data, not other\)"):
        open_ledger(used, data="other")
    mine = open_ledger(used, data="data")
    with pytest.raises(LedgerError, match="keep one folder a data set"):
        open_ledger(used, data="other")
    assert mine.charges == (PLANNED,)


def test_a_learner_that_is_set_up_anew_goes_on_and_another_process_is_refused(used: Path) -> None:
    mine = open_ledger(used, data="data")
    assert open_ledger(used, data="data") is mine
    script = f"from collective_learner.privacy.ledger import open_ledger; open_ledger({str(used)!r}, data='data')"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "is in use by another learner" in other.stderr
    mine.close()
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_where_it_is_kept(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.delenv(STATE_DIR, raising=False)
    train(open_ledger(None, data="data"))
    assert "kept in memory only" in caplog.text
    monkeypatch.setenv(STATE_DIR, "")
    with pytest.raises(LedgerError, match=r"--state-dir, or spec\.learners\.storage"):
        open_ledger(None, data="data")
    monkeypatch.setenv(STATE_DIR, str(tmp_path / "deep" / "down"))
    train(open_ledger(None, data="data"))
    assert spent(tmp_path / "deep" / "down") == [[1.5, 0.25, 10]]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LedgerError, match="no ledger can be kept in"):
        open_ledger(tmp_path / "file", data="data")


def test_a_charge_that_cannot_be_kept_is_no_training(used: Path, monkeypatch) -> None:
    ledger = open_ledger(used, data="data")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"), ledger.charged(PLANNED):
            pytest.fail("trained")
        assert ledger.charges == (PLANNED,)
    with monkeypatch.context() as patch, ledger.charged(PLANNED) as taken:
        taken.step()
        patch.setattr(os, "fsync", full)  # what cannot be given back stays charged, and the training stands
    assert ledger.charges == (Charge(noise_multiplier=1.5, sample_rate=0.25, steps=20),)
    assert spent(used) == [[1.5, 0.25, 20]]
