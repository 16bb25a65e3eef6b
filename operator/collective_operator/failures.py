"""What is held against a pod: how often it has crashed in a row, counted from one look to the next.

The counts stand in the task's status, so that an operator that is started anew goes on counting.  A learner is forgiven
when two rounds were decided while it was ready, of which it took part in the second from the start to the end; a
coordinator when it has decided one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collective_operator.pods import Pod, Trouble

_FORGIVEN_AFTER_ROUNDS = 2
_UNKNOWN = "unknown"
"""The uid of a pod that was asked for and not seen yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Of a learner."""

    count: int = 0
    pod: str = ""
    """The uid of the pod whose end was counted last: it may stay for a while, and counts once."""
    round: int = 0
    """Rounds that were decided when the learner was last not ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Of a coordinator."""

    count: int = 0
    """Crashes and losses since the last decided round."""
    uid: str = ""
    restarts: int = 0
    message: str = ""
    """What was wrong last."""


def learner_failures(last: Mapping[str, Any], pod: Pod | None, *, decided: int) -> Failures:
    """Count on.

    Parameters
    ----------
    last
        The learner's part of the task's status.
    pod
        Its pod now.
    decided
        Rounds that are decided now.
    """
    held = last.get("failures", {})
    before = Failures(count=held.get("count", 0), pod=held.get("pod", ""), round=held.get("round", 0))
    if pod is None:
        return Failures(count=before.count, pod=before.pod, round=decided) if before.count else before
    restarts, counted = last.get("restarts", 0), before.pod
    crashes = pod.restarts - restarts if pod.restarts >= restarts else pod.restarts
    if pod.terminating:
        # It ends, too: it was drained, preempted or deleted, and has not crashed.  How often it did before may be of
        # a time that is forgiven: on a node that does not answer, it stays.
        crashes = 0
    elif pod.ended and pod.uid != counted:
        crashes, counted = crashes + 1, pod.uid
    works = pod.ready and not crashes
    if not before.count + crashes or (works and decided >= before.round + _FORGIVEN_AFTER_ROUNDS):
        return Failures()
    return Failures(count=before.count + crashes, pod=counted, round=before.round if works else decided)


def coordinator_attempts(
    last: Mapping[str, Any], pod: Pod | None, *, trouble: Trouble | None, wanted: bool, progressed: bool
) -> Attempts:
    """Count what went wrong since the last decided round: a coordinator that gets nowhere must not go on for ever.

    Each pod that vanished is an attempt, whoever made it vanish, and so is each restart of a container.  A pod that is
    being created counts before its uid is known, so that one which is lost at once is not made again for nothing.

    Parameters
    ----------
    last
        The coordinator's part of the task's status.
    pod, trouble
        Its pod now, and what is wrong with it or with making it.
    wanted
        There is to be one by now.
    progressed
        A round has been decided since.
    """
    attempts, restarts, uid = last.get("attempts", 0), last.get("restarts", 0), last.get("uid", "")
    message = last.get("message", "")
    if pod and pod.uid == uid:
        attempts += max(0, pod.restarts - restarts)
        message = pod.last_end if pod.last_end and pod.restarts > restarts else message
    elif pod:
        attempts += (0 if pod.terminating else pod.restarts) + (1 if uid not in ("", _UNKNOWN) else 0)
    elif wanted and not trouble:
        if uid:
            attempts, message = attempts + 1, message or "its pod is gone"
        uid = _UNKNOWN
    if pod:
        uid, restarts = pod.uid, pod.restarts
    if progressed:
        attempts, message = 0, ""
    if trouble:
        message = trouble.message
    return Attempts(count=attempts, uid=uid, restarts=restarts, message=message)
