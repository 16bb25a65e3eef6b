"""What survives a crash: the last decisions and the weights that came of them.

Directory ``checkpoint/`` of the state directory, format version 2::

    round-00000007        a decision: one header line, then a JSON object
    weights-<digest>      serialised weights, the very bytes that the learners hold; several decisions may share them
    state-<digest>        what a strategy keeps beside them: a server optimizer's moments
    spool-*               a proposal under way; worth nothing after a crash

The header is ``collective-checkpoint <version> <sha256 of the JSON> <its bytes>``. The JSON holds ``identity`` (what
makes it this task's), ``round`` (0: the equal weights that everyone starts from), ``accepted`` (so far), ``weights``
{digest: BLAKE3 in hexadecimal, size: bytes}, ``state`` (likewise, or null), ``held`` {round, proposer, testScore,
voteScore} of the last accepted proposal, ``latest`` (the same of the last proposal), ``best`` {round, score, weights},
``progress`` {round, score}, ``scores`` (by learner, the last test score), ``heldScores`` (by learner, its vote score
for the weights held), ``record`` (the line of ``rounds.jsonl``; null in round 0),
``privacy`` (by learner, its budget, and why it may not train any more), and ``examples`` (by learner, how many it
trained on last). The last `KEPT` decisions stay,
and the best model.

Order makes it safe: the weights are on disk under their final name before the decision that names them, both before
the directory is synced, and all of it before any learner is told. A decision that is damaged, or whose weights are, is
passed over for the one before, aloud.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from collective_coordinator.durable import write_durably
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.spool import Spool, StoredWeights
from collective_learner.wire.digest import new_digest

LOG = logging.getLogger(__name__)

MAGIC = "collective-checkpoint"
VERSION = 2
KEPT = 3
_CHUNK = 1 << 20


class DamagedError(Exception):
    """A checkpoint cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One proposal and its mean scores over the learners that tested it; no proposer when several have trained."""

    round: int
    proposer: str | None
    test_score: float | None
    vote_score: float | None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best model that the learners ever held, by mean test score, and when."""

    round: int
    score: float | None
    weights: StoredWeights


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The last round that improved the mean test score by more than `Stop.min_delta`, and to what."""

    round: int
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One decision, and all that is needed to go on after it.

    Parameters
    ----------
    round
        The last round decided; 0 for the equal weights that everyone starts from.
    accepted
        How many rounds were accepted, round 0 not counted.
    weights
        What every learner holds.
    held, latest
        The last accepted proposal, and the last proposal.
    scores
        By learner, the last test score.
    held_scores
        By learner, its vote score for the weights held, of those who judged them.
    record
        The line of ``rounds.jsonl``; None for round 0.
    state
        What the strategy keeps beside the weights; None for those that keep nothing, and before the first acceptance.
    best, progress
        The best held model and the last improvement.
    privacy
        By learner, what it told of its privacy budget.
    examples
        By learner, on how many examples it trained last, of those who told.
    """

    round: int
    accepted: int
    weights: StoredWeights
    held: Standing
    latest: Standing
    best: Best
    progress: Progress
    state: StoredWeights | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    held_scores: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None
    privacy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)


class CheckpointStore:
    """The checkpoints of one task. All methods block: call in threads.

    Parameters
    ----------
    directory
        ``checkpoint/`` of the state directory; made when absent.
    identity
        What makes a checkpoint this task's.
    """

    def __init__(self, directory: Path, *, identity: str) -> None:
        self._directory = directory
        self._identity = identity
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in [*directory.glob("spool-*"), *directory.glob(".*.tmp")]:
            left_over.unlink()

    def spool(self, name: str) -> Spool:
        """Open a spool beside the checkpoints."""
        return Spool(self._directory / f"spool-{name}")

    def load(self) -> list[Snapshot]:
        """Read the kept decisions, newest first, from the newest that can be used; empty when there is none at all.

        Raises
        ------
        TaskFailedError
            The directory holds another task's checkpoint, one of a newer version, or damaged ones only.
        """
        paths = sorted(self._directory.glob("round-*"), reverse=True)
        usable: list[Snapshot] = []
        sound: dict[Path, bool] = {}
        for path in paths:
            try:
                snapshot = self._read(path)
                for file in filter(None, (snapshot.weights, snapshot.state)):
                    if not _is_sound(file, known=sound):
                        raise DamagedError(f"its {file.path.name} is missing or damaged")
                if not _is_sound(snapshot.best.weights, known=sound):
                    LOG.error("the best model, of round %d, is missing or damaged", snapshot.best.round)
                    held = snapshot.held
                    snapshot = replace(
                        snapshot, best=Best(round=held.round, score=held.test_score, weights=snapshot.weights)
                    )
                usable.append(snapshot)
            except DamagedError as error:
                LOG.error("checkpoint %s cannot be used: %s; going back to the one before", path.name, error)
        if paths and not usable:
            raise TaskFailedError("CheckpointDamaged", f"no checkpoint in {self._directory} can be used; see the log")
        return usable

    def save(self, snapshot: Snapshot, *, spool: Spool | None, state_spool: Spool | None = None) -> Snapshot:
        """Put a decision on disk; when this returns, it and its weights survive kill -9 and a power cut.

        Parameters
        ----------
        snapshot
            The decision; `weights` lie in the spool, or are those of the decision before.
        spool
            Holds the new weights; it becomes their file. None when the weights stay.
        state_spool
            Likewise for the strategy's state.

        Returns
        -------
        Snapshot
            With the files where they now are.
        """
        if spool is not None:
            weights = self._keep(spool, "weights")
            best = snapshot.best
            if best.weights.digest == weights.digest:
                best = replace(best, weights=weights)
            snapshot = replace(snapshot, weights=weights, best=best)
        if state_spool is not None:
            snapshot = replace(snapshot, state=self._keep(state_spool, "state"))
        write_durably(self._path(snapshot.round), self._encode(snapshot))
        return snapshot

    def _keep(self, spool: Spool, kind: str) -> StoredWeights:
        spool.sync()
        stored = spool.stored()
        target = self._file(kind, stored.digest.hex())
        spool.path.replace(target)
        target.chmod(0o444)
        return replace(stored, path=target)

    def _file(self, kind: str, digest: str) -> Path:
        return self._directory / f"{kind}-{digest}"

    def prune(self, *, newest: int) -> None:
        """Delete decisions older than the last `KEPT`, any newer than `newest` (damaged), and files nobody names."""
        kept = [path for path in sorted(self._directory.glob("round-*")) if path <= self._path(newest)][-KEPT:]
        named: set[str] = set()
        for path in self._directory.glob("round-*"):
            if path not in kept:
                path.unlink(missing_ok=True)
                continue
            try:
                snapshot = self._read(path)
                named.update(
                    file.path.name for file in (snapshot.weights, snapshot.best.weights, snapshot.state) if file
                )
            except DamagedError:
                path.unlink(missing_ok=True)
        for path in [*self._directory.glob("weights-*"), *self._directory.glob("state-*")]:
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"round-{number:08d}"

    def _encode(self, snapshot: Snapshot) -> bytes:
        best, progress = snapshot.best, snapshot.progress
        body = json.dumps(
            {
                "identity": self._identity,
                "round": snapshot.round,
                "accepted": snapshot.accepted,
                "weights": _file_document(snapshot.weights),
                "state": _file_document(snapshot.state) if snapshot.state else None,
                "best": {"round": best.round, "score": best.score, "weights": _file_document(best.weights)},
                "progress": {"round": progress.round, "score": progress.score},
                "held": _standing_document(snapshot.held),
                "latest": _standing_document(snapshot.latest),
                "scores": dict(snapshot.scores),
                "heldScores": dict(snapshot.held_scores),
                "record": snapshot.record,
                "privacy": {name: dict(told) for name, told in snapshot.privacy.items()},
                "examples": dict(snapshot.examples),
            },
            separators=(",", ":"),
            allow_nan=False,
        ).encode()
        return f"{MAGIC} {VERSION} {hashlib.sha256(body).hexdigest()} {len(body)}\n".encode() + body

    def _read(self, path: Path) -> Snapshot:
        try:
            header, _, body = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise DamagedError(f"cannot be read: {error.strerror}") from error
        fields = header.split(b" ")
        if len(fields) != 4 or fields[0] != MAGIC.encode() or not fields[1].isdigit():
            raise DamagedError("it does not begin like a checkpoint")
        if int(fields[1]) != VERSION:
            raise TaskFailedError(
                "CheckpointDamaged",
                f"{path.name} has format version {int(fields[1])}, this coordinator reads version {VERSION}",
            )
        if fields[2] != hashlib.sha256(body).hexdigest().encode() or fields[3] != str(len(body)).encode():
            raise DamagedError("its content does not match its checksum")
        document = json.loads(body)
        if document["identity"] != self._identity:
            raise TaskFailedError(
                "StateOfAnotherTask",
                f"{self._directory} holds the rounds of a task with another model, other data or another seed",
            )
        best, progress, state = document["best"], document["progress"], document["state"]
        return Snapshot(
            round=document["round"],
            accepted=document["accepted"],
            weights=self._stored("weights", document["weights"]),
            state=self._stored("state", state) if state else None,
            best=Best(round=best["round"], score=best["score"], weights=self._stored("weights", best["weights"])),
            progress=Progress(round=progress["round"], score=progress["score"]),
            held=_standing(document["held"]),
            latest=_standing(document["latest"]),
            scores=document["scores"],
            held_scores=document["heldScores"],
            record=document["record"],
            privacy=document.get("privacy", {}),
            examples=document.get("examples", {}),
        )

    def _stored(self, kind: str, document: Mapping[str, Any]) -> StoredWeights:
        digest = document["digest"]
        return StoredWeights(path=self._file(kind, digest), digest=bytes.fromhex(digest), size=document["size"])


def _file_document(file: StoredWeights) -> dict[str, Any]:
    return {"digest": file.digest.hex(), "size": file.size}


def _standing_document(standing: Standing) -> dict[str, Any]:
    return {
        "round": standing.round,
        "proposer": standing.proposer,
        "testScore": standing.test_score,
        "voteScore": standing.vote_score,
    }


def _standing(document: Mapping[str, Any]) -> Standing:
    return Standing(
        round=document["round"],
        proposer=document["proposer"],
        test_score=document["testScore"],
        vote_score=document["voteScore"],
    )


def _is_sound(file: StoredWeights, *, known: dict[Path, bool]) -> bool:
    """Read a file through, once: sizes alone would pass one whose blocks never reached the disk."""
    if file.path not in known:
        known[file.path] = _has_digest(file)
    return known[file.path]


def _has_digest(weights: StoredWeights) -> bool:
    digest = new_digest()
    try:
        with weights.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != weights.size:
                return False
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        LOG.error("%s cannot be read: %s", weights.path.name, error.strerror)
        return False
    return digest.digest() == weights.digest
