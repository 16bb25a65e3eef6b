"""How a run ends: by what the reconcile says, or by what only a laptop can know.

In a cluster somebody may yet push the image whose module is missing, and a learner that crashes at every start is
worth waiting for, up to the task's own deadline of minutes. On a laptop its owner sits before it: three starts that
ended before the learner was ever ready are an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from collective_operator.cluster.local_pod import START_MARK, LocalPod
from collective_operator.run.view import LogTail

HOPELESS_STARTS = 3
LEARNER_CRASHING = "LearnerCrashing"
_TAIL_LINES = 12
_TAIL_BYTES = 65536
_TAILS = 3
_LOGGED = re.compile(r"\d{4}-\d\d-\d\d ")


def crash_at_start(pods: Mapping[str, LocalPod]) -> str | None:
    """Tell which learner will not start, with its last words; None when there is none."""
    for pod in pods.values():
        if pod.is_learner and not pod.was_ready and pod.deaths >= HOPELESS_STARTS:
            said = _error_line(pod.last_words)
            return f"{pod.log.stem} ended {pod.deaths} times before it was ready" + (f": {said}" if said else "")
    return None


def _error_line(text: str) -> str:
    """Find what went wrong in the last lines of a program: the last line that is no detail of another."""
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line[0].isspace()), "")


def tails(pods: Mapping[str, LocalPod], message: str, *, logs: Path) -> list[LogTail]:
    """Read what those printed last that a failure is about: who died, or is named in its message.

    Parameters
    ----------
    pods
        All that ran.
    message
        Why the task failed.
    logs
        The folder of their logs.

    Returns
    -------
    list[LogTail]
        A few at most, and of several that say the same, but for what they logged on the way, only the first.
    """
    named = set(re.findall(r"[a-z]+(?:-\d+)?", message))
    found: list[LogTail] = []
    for pod in pods.values():
        if pod.deaths or pod.log.stem in named:
            tail = _tail(logs / pod.log.name)
            if len(found) < _TAILS and _words(tail) not in map(_words, found):
                found.append(tail)
    return found


def _words(tail: LogTail) -> Sequence[str]:
    """Leave out what was logged: times and ports differ where the error is the same."""
    return [line for line in tail.lines if not _LOGGED.match(line)] or tail.lines


def _tail(path: Path) -> LogTail:
    """Read the last lines of the last start that printed any, which one that has only logged so far has not."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        text = f"(cannot be read: {error.strerror})"
    starts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith(START_MARK):
            starts.append([])
        else:
            starts[-1].append(line)
    said = [lines for lines in starts if lines]
    printed = [lines for lines in said if not all(map(_LOGGED.match, lines))]
    return LogTail(process=path.stem, path=path, lines=(printed or said or [[]])[-1][-_TAIL_LINES:])
