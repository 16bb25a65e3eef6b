"""The status document, in one place: what /status answers, and the last word of the program.

NaN and infinities are no JSON: where a number is none, it stands as null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.config import Config
from collective_coordinator.exports import Export, weights_export
from collective_coordinator.history import OPAQUE
from collective_coordinator.member import Member
from collective_coordinator.scores import finite
from collective_learner.wire.digest import name_of

VERSION = 1
MOST_BYTES = 4096
"""Of a termination message: a kubelet cuts what is longer, and earlier where a pod has more than three containers."""

_MOST_MESSAGE = 1024
_MOST_REASON = 256

Document = dict[str, Any]


class Board:
    """How far the task is.

    Parameters
    ----------
    config
        Of the task.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._phase = "Waiting"
        self._reason = "Starting"
        self._message = "Finding out how far the task is"
        self._snapshot: Snapshot | None = None
        self._result: Document | None = None
        self.members: Sequence[Member] = ()
        self.exports: Sequence[Export] = ()
        """The model in other formats than that of the weights."""
        self.location: str | None = None
        """Where the result has been brought to."""

    @property
    def namespace(self) -> str:
        """The task's."""
        return self._config.namespace

    @property
    def name(self) -> str:
        """The task's."""
        return self._config.name

    @property
    def phase(self) -> str:
        """Waiting, Running, Complete or Failed."""
        return self._phase

    @property
    def round(self) -> int:
        """The last round decided."""
        return self._snapshot.round if self._snapshot else 0

    def waiting(self, message: str | None) -> None:
        """Show what is waited for; None when it goes on."""
        if self._snapshot is not None or message is None:
            self._phase = "Running"
        self._reason = "RoundsInProgress" if message is None else "WaitingForLearners"
        self._message = "" if message is None else message

    def exporting(self) -> None:
        """Show that the rounds are over, and the model is being written in other formats."""
        self._phase, self._reason, self._message = "Running", "ExportingModel", "Writing the model in other formats"

    def uploading(self, where: str) -> None:
        """Show that nobody learns any more, and the result is on its way."""
        self._phase, self._reason, self._message = "Running", "UploadingResult", f"Bringing the result to {where}"

    def decided(self, snapshot: Snapshot) -> None:
        """Show a decision."""
        self._snapshot = snapshot

    def verdict(self, phase: str, reason: str, message: str) -> None:
        """Show the end; blocks for a look at the model's file."""
        self._phase, self._reason, self._message = phase, reason, message
        if self._snapshot is not None:
            held = self._snapshot.held
            weights = weights_export(self._snapshot.weights)
            self._result = {
                "model": weights.file or OPAQUE,
                "formats": [export.document() for export in (weights, *self.exports)],
                "testScore": finite(held.test_score),
                "voteScore": finite(held.vote_score),
                "proposer": held.proposer,
                "rounds": self._snapshot.round,
                "accepted": self._snapshot.accepted,
                "digest": name_of(self._snapshot.weights.digest),
                **({"location": self.location} if self.location else {}),
            }

    def document(self) -> Document:
        """Give the whole; what says how it is comes first, as a kubelet may cut the end (`MOST_BYTES`)."""
        snapshot = self._snapshot
        scores = snapshot.scores if snapshot else {}
        record = (snapshot.record if snapshot else None) or {}
        privacy = snapshot.privacy if snapshot else {}
        return {
            "version": VERSION,
            "uid": self._config.uid,
            "phase": self._phase,
            "reason": self._reason,
            "round": {
                "current": snapshot.round if snapshot else 0,
                "total": self._config.rounds,
                "accepted": snapshot.accepted if snapshot else 0,
            },
            "message": self._message,
            "result": self._result,
            "latest": _latest(snapshot) if snapshot else None,
            "score": finite(snapshot.held.test_score) if snapshot else None,
            "participation": _participation(record),
            "learners": [
                {
                    "name": member.name,
                    "state": str(member.state),
                    "lastScore": finite(scores.get(member.name)),
                    "message": (member.message or _left_out(record, member.name) or _spent(privacy, member.name))[
                        :_MOST_MESSAGE
                    ],
                    **({"privacy": dict(privacy[member.name])} if member.name in privacy else {}),
                }
                for member in self.members
            ],
        }


def _latest(snapshot: Snapshot) -> Document | None:
    latest = snapshot.latest
    if latest.round == 0:
        return None
    return {
        "round": latest.round,
        "testScore": finite(latest.test_score),
        "voteScore": finite(latest.vote_score),
        "proposer": latest.proposer,
        "accepted": latest.round == snapshot.held.round,
    }


def _participation(record: Mapping[str, Any]) -> Document | None:
    """Tell who was in the last decided round, and who was not, and why."""
    if not record:
        return None
    left_out = {name: str(why)[:_MOST_REASON] for name, why in record.get("leftOut", {}).items()}
    return {
        "round": record["round"],
        "strategy": record["strategy"],
        "trainers": record["trainers"],
        "testers": list(record["testScores"]),
        "leftOut": left_out,
    }


def _left_out(record: Mapping[str, Any], name: str) -> str:
    why = record.get("leftOut", {}).get(name)
    return f"left out of round {record['round']}: {why}" if why else ""


def _spent(privacy: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return str(privacy.get(name, {}).get("spent", ""))


def fitted(document: Document, *, most: int = MOST_BYTES) -> bytes:
    """Serialise a status document in at most so many bytes: what is by learner goes first, then the message's end."""
    encoded = _encoded(document)
    if len(encoded) > most:
        document = {key: value for key, value in document.items() if key not in ("learners", "participation")}
        encoded = _encoded(document)
    message = str(document["message"])
    while len(encoded) > most and message:
        # A character is up to 12 bytes as JSON escapes; halving ends soon and always.
        message = message[: len(message) // 2]
        encoded = _encoded({**document, "message": f"{message}..."})
    return encoded


def write_last_word(path: Path, document: Document) -> None:
    """Write the termination message.

    The file may be a mount, so it is opened and not replaced; and below /dev it is there, or this is no pod.
    """
    create = 0 if path.is_relative_to("/dev") else os.O_CREAT
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | create, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(fitted(document))


def _encoded(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
