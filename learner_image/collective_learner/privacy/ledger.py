"""What a learner has spent of its data's privacy, kept where a restart finds it.

Forgetting a training would spend the same budget twice, and nobody would notice. So what is planned is on disk before
the first batch is drawn, long before a proposal leaves the learner; a training that ends early gives back the steps
that it did not take, and one that is killed gives back nothing. A proposal that is voted down, or never fetched, stays
charged: it was made from the data, and others may have seen it.

A folder holds one ledger, of one data set::

    privacy.ledger          a line ``collective-privacy-ledger <version> <sha256 of the JSON> <its bytes>``, then JSON:
                            {"data": identity of the data, "charges": [[noise multiplier, sample rate, steps], ...]}
    privacy.ledger.begun    made right after the first ledger, and never removed

The folder is locked by the process that uses it. The ledger is replaced whole (written aside, synced, renamed), so a
crash tears nothing. What is damaged, of another data set, or gone although it had begun, is refused and never begun
anew: a person has to look. What nobody can notice from inside is a folder that vanished with everything in it; whoever
drives the rounds compares what a learner tells with what it told before.

All charges count for all configurations: another noise or another target on the same data adds to what was spent.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collective_learner.environment import STATE_DIR
from collective_learner.privacy.accountant import merged
from collective_learner.privacy.charge import Charge

_logger = logging.getLogger(__name__)

MAGIC, VERSION = "collective-privacy-ledger", 1
NAME, BEGUN = "privacy.ledger", "privacy.ledger.begun"

_open: weakref.WeakValueDictionary[Path, Ledger] = weakref.WeakValueDictionary()
"""Of this process: a learner that is set up anew goes on in the ledger of the one before."""

_opening = threading.Lock()


class LedgerError(ValueError):
    """A ledger cannot be used, and training without it could spend more than is allowed."""


class Ledger:
    """What was spent. Get one by `open_ledger`; made directly it is in memory only.

    Parameters
    ----------
    data
        Identifies the data set.
    folder
        Where it is kept; None: nowhere.
    """

    def __init__(self, *, data: str, folder: Path | None = None) -> None:
        self.data = data
        self._folder = folder
        self._charges: tuple[Charge, ...] = ()
        self._held: int | None = None
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = _locked(folder)
            try:
                self._charges = self._read(folder / NAME, begun=(folder / BEGUN).exists())
                if not (folder / BEGUN).exists():
                    self._keep(self._charges)
                    _replace(folder / BEGUN, b"")
            except BaseException:
                self.close()
                raise

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All that was spent, a training under way included."""
        return self._charges

    @contextlib.contextmanager
    def charged(self, planned: Charge) -> Iterator[Taken]:
        """Charge a training before it begins, and give back what it did not use.

        Parameters
        ----------
        planned
            All its steps.

        Yields
        ------
        Taken
            To be told of every step before it is taken.

        Raises
        ------
        OSError
            The charge cannot be kept: there must be no training.
        """
        with self._lock:
            self._keep(merged([*self._charges, planned]))
        taken = Taken(most=planned.steps)
        try:
            yield taken
        finally:
            if taken.steps < planned.steps:
                self._give_back(planned, planned.steps - taken.steps)

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def __del__(self) -> None:
        self.close()

    def _give_back(self, planned: Charge, steps: int) -> None:
        alike = planned.noise_multiplier, planned.sample_rate
        rest = tuple(
            Charge(noise_multiplier=each.noise_multiplier, sample_rate=each.sample_rate, steps=each.steps - steps)
            if (each.noise_multiplier, each.sample_rate) == alike
            else each
            for each in self._charges
        )
        try:
            with self._lock:
                self._keep(merged(rest))
        except OSError as error:
            _logger.warning("privacy: %d steps that were not taken stay charged: %s", steps, error)

    def _read(self, path: Path, *, begun: bool) -> tuple[Charge, ...]:
        try:
            header, _, body = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            if not begun:
                return ()
            raise LedgerError(
                f"privacy: {path} is missing although {BEGUN} says that it had begun; what was spent is not known, so "
                "nothing more can be spent. Bring the ledger back, or use other data"
            ) from None
        fields = header.split(b" ")
        if len(fields) != 4 or fields[0] != MAGIC.encode() or not fields[1].isdigit():
            raise LedgerError(f"privacy: {path} does not begin like a ledger; it is not begun anew")
        if int(fields[1]) != VERSION:
            raise LedgerError(f"privacy: {path} has version {int(fields[1])}, this learner reads version {VERSION}")
        if fields[2] != hashlib.sha256(body).hexdigest().encode() or fields[3] != str(len(body)).encode():
            raise LedgerError(f"privacy: {path} is damaged, its content is not what its checksum says")
        document: dict[str, Any] = json.loads(body)
        if document["data"] != self.data:
            raise LedgerError(
                f"privacy: {path} is about other data ({document['data']}, not {self.data}); a data set that has "
                "changed shares examples with the one before, so its budget is not new. Keep one folder a data set"
            )
        return tuple(
            Charge(noise_multiplier=noise, sample_rate=rate, steps=steps) for noise, rate, steps in document["charges"]
        )

    def _keep(self, charges: tuple[Charge, ...]) -> None:
        if self._folder is not None:
            rows = [[each.noise_multiplier, each.sample_rate, each.steps] for each in charges]
            body = json.dumps({"data": self.data, "charges": rows}, separators=(",", ":"), allow_nan=False).encode()
            header = f"{MAGIC} {VERSION} {hashlib.sha256(body).hexdigest()} {len(body)}\n".encode()
            _replace(self._folder / NAME, header + body)
        self._charges = charges


class Taken:
    """Counts the steps of one training.

    Parameters
    ----------
    most
        What was charged; one more is an error, since nobody would have paid for it.
    """

    def __init__(self, *, most: int) -> None:
        self.steps = 0
        self._most = most

    def step(self) -> None:
        """Count a step; called before anything is drawn for it."""
        if self.steps >= self._most:
            raise RuntimeError(f"privacy: a step more than the {self._most} that were charged")
        self.steps += 1


def open_ledger(folder: str | os.PathLike[str] | None, *, data: str) -> Ledger:
    """Open the ledger of a data set, or begin it.

    Parameters
    ----------
    folder
        Where it is kept. None: where the environment variable COLLECTIVE_STATE_DIR says; where that is not set, in
        memory, with a warning; where it is empty, as for a learner that is served without a folder, nowhere.
    data
        Identifies the data set.

    Raises
    ------
    LedgerError
        The ledger is damaged, lost, of other data, in use by another process, or has no place.
    """
    if folder is None:
        folder = os.environ.get(STATE_DIR)
    if folder is None:
        _logger.warning(
            "privacy: what is spent is kept in memory only and forgotten with this process; set %s to a folder",
            STATE_DIR,
        )
        return Ledger(data=data)
    if not os.fspath(folder):
        raise LedgerError(
            "privacy: there is no folder for the ledger of what is spent, and a restart would forget it; give the "
            "learner one that survives restarts (--state-dir, or spec.learners.storage in a task)"
        )
    path = Path(folder).resolve()
    with _opening:
        ledger = _open.get(path)
        if ledger is None:
            try:
                ledger = _open[path] = Ledger(data=data, folder=path)
            except OSError as error:
                raise LedgerError(f"privacy: no ledger can be kept in {path}: {error.strerror or error}") from error
    if ledger.data != data:
        raise LedgerError(
            f"privacy: {path} is about other data ({ledger.data}, not {data}); keep one folder a data set"
        )
    return ledger


def _locked(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise
        raise LedgerError(f"privacy: {folder} is in use by another learner; each needs a folder of its own") from None
    return descriptor


def _replace(path: Path, content: bytes) -> None:
    """Replace a file so that it is the old or the new one, whole, whatever happens."""
    aside = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
