"""The conditions of a task, judged by one look at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from collective_operator import conditions
from collective_operator.conditions import Condition
from collective_operator.pods import Pod, Trouble
from collective_operator.progress import Progress
from collective_operator.reasons import Reason, Type
from collective_operator.situation import SILENT_SECONDS, Ending, Situation, Suspension

TOLD_STATES = ("Connecting", "SettingUp", "Lost")
"""States in which a coordinator sees a learner whose pod is ready, and that people must know of."""

_FIRST = (
    Reason.IMPORT_FAILED,
    Reason.CODE_MISSING,
    Reason.BACKOFF_EXCEEDED,
    Reason.CREATE_REFUSED,
    Reason.IMAGE_UNAVAILABLE,
    Reason.CONTAINER_NOT_CREATED,
    Reason.CRASHING,
    Reason.UNSCHEDULABLE,
    Reason.POD_LOST,
    Reason.SCHEDULING_GATED,
)
"""Of several troubles, the one that is told: the least likely to go away by itself comes first."""

_TLS_OFF = (
    "the spec is valid; without TLS, whoever reaches the task's pods can read and change what is learnt: "
    "spec.tls.mode is Off, or an operator from before TLS began it"
)
_AFTER_ROUNDS = (Reason.EXPORTING_MODEL, Reason.UPLOADING_RESULT)
_NAMED = 3


def judged(seen: Situation, ending: Ending | None) -> Iterator[Condition]:
    """Yield every condition."""
    yield _accepted(seen)
    if ending:
        yield from ended(ending)
        return
    if seen.suspension is Suspension.NONE:
        yield _learners_ready(seen)
        yield _coordinator_ready(seen)
        yield _progressing(seen)
    else:
        for kind in (Type.LEARNERS_READY, Type.COORDINATOR_READY, Type.PROGRESSING):
            yield Condition(kind, "False", Reason.TASK_SUSPENDED)
    yield _suspended(seen)
    yield Condition(Type.COMPLETE, "False", Reason.NOT_FINISHED)
    yield Condition(Type.FAILED, "False", Reason.NOT_FINISHED)


def ended(ending: Ending) -> Iterator[Condition]:
    """Yield every condition of a task that is over, but what is said of its spec."""
    for kind in (Type.LEARNERS_READY, Type.COORDINATOR_READY, Type.PROGRESSING, Type.SUSPENDED):
        yield Condition(kind, "False", Reason.FINISHED)
    for kind, holds in ((Type.COMPLETE, ending.complete), (Type.FAILED, not ending.complete)):
        yield Condition(
            kind,
            "True" if holds else "False",
            ending.reason if holds else Reason.FINISHED,
            ending.message if holds else "",
        )


def _accepted(seen: Situation) -> Condition:
    if seen.task.spec.tls.mode == "Off":
        return Condition(Type.ACCEPTED, "True", Reason.TLS_OFF, _TLS_OFF)
    return Condition(Type.ACCEPTED, "True", Reason.ACCEPTED, "the spec is valid")


def learner_troubles(seen: Situation) -> list[Trouble]:
    """List what is wrong with learners, the worst first."""
    # One that runs is well until its certificate runs out: who may not renew that says so before.
    found = list(
        filter(
            None,
            (
                seen.learner_trouble(index) or (seen.refusal(pod.name) if pod else None)
                for index, pod in enumerate(seen.learners)
            ),
        )
    )
    # What guards them all may be refused while they run: where they do not, each of them tells already.
    if all(trouble.reason is not Reason.CREATE_REFUSED for trouble in found):
        found += filter(None, [seen.refused_guard])
    return sorted(found, key=lambda trouble: _FIRST.index(trouble.reason))


def told(troubles: list[Trouble]) -> list[str]:
    """Name the first few, each once, and count the rest."""
    return first_few(trouble.message for trouble in troubles)


def first_few(messages: Iterable[str]) -> list[str]:
    """Take the first few, each once, and count the rest."""
    each = [*dict.fromkeys(messages)]
    return each[:_NAMED] + ([f"and {len(each) - _NAMED} more"] if len(each) > _NAMED else [])


def _learners_ready(seen: Situation) -> Condition:
    if seen.learners_done:
        message = "; ".join(["they have done all that they can do", *told(seen.kept)])
        return Condition(Type.LEARNERS_READY, "False", Reason.FINISHED, message)
    count, ready, troubles = len(seen.learners), seen.ready_learners, learner_troubles(seen)
    message = "; ".join([f"{ready} of {count} ready", *told([*troubles, *seen.kept])])
    if ready == count:
        return Condition(Type.LEARNERS_READY, "True", Reason.ALL_READY, message)
    if ready >= seen.task.min_learners:
        return Condition(Type.LEARNERS_READY, "True", Reason.QUORUM_READY, message)
    return Condition(Type.LEARNERS_READY, "False", troubles[0].reason if troubles else Reason.STARTING, message)


def _coordinator_ready(seen: Situation) -> Condition:
    pod, trouble = seen.coordinator, seen.coordinator_trouble
    if pod and pod.ready:
        # It runs on with what it has, and what it was to have is no less refused.
        refusal = seen.refusal(pod.name)
        message = "; ".join([f"{pod.name} is ready", *told([refusal] if refusal else [])])
        return Condition(Type.COORDINATOR_READY, "True", Reason.SERVING, message)
    if trouble:
        return Condition(Type.COORDINATOR_READY, "False", trouble.reason, trouble.message)
    return Condition(Type.COORDINATOR_READY, "False", Reason.STARTING, "its pod is starting")


def _progressing(seen: Situation) -> Condition:
    pod, said = seen.coordinator, seen.progress
    if said and not (seen.learners_done and said.phase == "Waiting"):
        # After its first round a coordinator says that it runs, also while it waits.
        if said.phase == "Running" and said.reason != Reason.WAITING_FOR_LEARNERS:
            return _running(said)
        missing = [learner.name for learner in said.learners if learner.state in TOLD_STATES]
        names = f": {', '.join(missing[:8])}" if missing else ""
        return Condition(
            Type.PROGRESSING, "False", Reason.WAITING_FOR_LEARNERS, f"the coordinator waits for learners{names}"
        )
    if said or not (pod and pod.ready):
        return Condition(Type.PROGRESSING, "False", Reason.WAITING_FOR_COORDINATOR)
    last = conditions.by_type(seen.before).get(Type.PROGRESSING, {})
    if last.get("reason") != Reason.COORDINATOR_SILENT and seen.silent_seconds < SILENT_SECONDS:
        if last.get("reason") in (Reason.ROUNDS_RUNNING, Reason.WAITING_FOR_LEARNERS, *_AFTER_ROUNDS):
            return Condition(Type.PROGRESSING, last["status"], last["reason"], last["message"])
        return Condition(Type.PROGRESSING, "False", Reason.WAITING_FOR_COORDINATOR)
    message = f"{pod.name} is ready and does not answer the operator"
    return Condition(Type.PROGRESSING, "Unknown", Reason.COORDINATOR_SILENT, message)


def _running(said: Progress) -> Condition:
    """Tell what goes on; what an older or newer coordinator calls otherwise is rounds."""
    if said.reason in _AFTER_ROUNDS:
        return Condition(Type.PROGRESSING, "True", said.reason, said.message)
    return Condition(Type.PROGRESSING, "True", Reason.ROUNDS_RUNNING, "the coordinator drives the rounds")


def _still_there(seen: Situation, pod: Pod) -> str:
    """Name a pod that is to go, and what keeps it."""
    if pod.terminating:
        return pod.trouble.message if pod.trouble else pod.name
    kept = seen.refusal(pod.name)
    return kept.message if kept else pod.name


def _suspended(seen: Situation) -> Condition:
    if seen.suspension in (Suspension.GOING, Suspension.LINGERING):
        names = sorted(_still_there(seen, pod) for pod in seen.pods)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        message = f"pods that are still there: {', '.join(names[:_NAMED])}{more}"
        # Whether what nobody hears of still runs, nobody knows.
        state: conditions.State = "Unknown" if seen.suspension is Suspension.LINGERING else "False"
        return Condition(Type.SUSPENDED, state, Reason.SUSPENDING, message)
    if seen.suspension is Suspension.DONE:
        total = seen.task.spec.rounds
        # One that is tried again has no start yet, and rounds all the same.
        begun = seen.decided_before or "startTime" in seen.before
        kept = f"{seen.decided_before} of {total} rounds are decided" if begun else "not started"
        return Condition(Type.SUSPENDED, "True", Reason.SUSPENDED, f"none of its pods is there; {kept}")
    last = conditions.by_type(seen.before).get(Type.SUSPENDED, {})
    if last.get("reason") in (Reason.SUSPENDING, Reason.SUSPENDED, Reason.RESUMED):
        return Condition(Type.SUSPENDED, "False", Reason.RESUMED, "it goes on where it stood still")
    return Condition(Type.SUSPENDED, "False", Reason.NOT_SUSPENDED)
