"""How a run ends: by what the reconcile says, or by what only a laptop can know.

In a cluster somebody may yet push the image whose module is missing, and a learner that crashes at every start is
worth waiting for, up to the task's own deadline of minutes. On a laptop its owner sits before it: three starts that
ended before the learner was ever ready are an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from collective_operator.cluster.local_pod import LocalPod
from collective_operator.run.view import LogTail

HOPELESS_STARTS = 3
LEARNER_CRASHING = "LearnerCrashing"
_TAIL_LINES = 12
_TAIL_BYTES = 65536
_TAILS = 3


def crash_at_start(pods: Mapping[str, LocalPod]) -> str | None:
    """Tell which learner will not start, with its last words; None when there is none."""
    for name, pod in pods.items():
        if pod.is_learner and not pod.was_ready and pod.deaths >= HOPELESS_STARTS:
            last = [line for line in pod.last_words.splitlines() if line.strip()]
            said = f": {last[-1].strip()}" if last else ""
            return f"{name} ended {pod.deaths} times before it was ready{said}"
    return None


def result_of(
    status: Mapping[str, Any], *, phase: str, reason: str, message: str, workdir: Path, models: Iterable[str]
) -> dict[str, Any]:
    """Build what result.json holds.

    Parameters
    ----------
    status
        The task's status at the end.
    phase, reason, message
        How it ended.
    workdir, models
        Where the model may be, and under which names.
    """
    held = status.get("result") or {}
    rounds = status.get("round", {})
    there = [name for name in models if (workdir / name).exists()]
    return {
        "phase": phase,
        "reason": reason,
        "message": message,
        "rounds": rounds.get("current", 0),
        "accepted": rounds.get("accepted", 0),
        "testScore": held.get("testScore"),
        "voteScore": held.get("voteScore"),
        "proposer": held.get("proposer"),
        "model": there[0] if there else None,
        "digest": held.get("digest"),
    }


def tails(pods: Mapping[str, LocalPod], message: str) -> list[LogTail]:
    """Read the last lines of those that a failure is about: whoever died, or is named in its message."""
    about = [
        pod
        for name, pod in pods.items()
        if pod.deaths or re.search(rf"\b{re.escape(pod.log.stem)}\b(?!-)", message) or name in message.split()
    ]
    return [_tail(pod.log) for pod in about[:_TAILS]]


def _tail(path: Path) -> LogTail:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError as error:
        lines = [f"(cannot be read: {error.strerror})"]
    return LogTail(process=path.stem, path=path, lines=lines)
