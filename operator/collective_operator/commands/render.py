"""Tasks as text for people: tables as kubectl prints them, colours where the terminal takes them.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from collective_operator import conditions
from collective_operator.api import is_managed_elsewhere
from collective_operator.log_lines import escaped
from collective_operator.reasons import Reason, Type
from collective_operator.run.view import score_text
from collective_operator.wording import unstamp

_GAP = "   "
_COLOURS = {"Complete": "green", "Failed": "red", "Running": "cyan"}
_OTHERWISE = "yellow"
_EVENTS = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SCALES = (
    (10 * _MINUTE, _MINUTE, "m", 1, "s"),
    (3 * _HOUR, _MINUTE, "m", 0, ""),
    (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
    (2 * _DAY, _HOUR, "h", 0, ""),
    (8 * _DAY, _DAY, "d", _HOUR, "h"),
    (math.inf, _DAY, "d", 0, ""),
)
"""Up to which age it is told in which unit, and in which lesser one beside it."""

Task = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out columns; the last one is as wide as it is.  Cells may be styled."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(click.unstyle(line[column])) for line in lines) for column in range(len(head))]
    return [
        _GAP.join(
            cell if column == len(head) - 1 else cell + " " * (widths[column] - len(click.unstyle(cell)))
            for column, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]


def phase_of(task: Task) -> str:
    """Name the phase; a task that no operator has looked at yet has none of its own."""
    return str((task.get("status") or {}).get("phase", "Pending"))


def harmless(value: Any) -> Any:
    """Make one line of every text in a document, and escape what would move a terminal's cursor.

    Whoever may make a task, or serve a learner, has a say in what others read of it.
    """
    if isinstance(value, str):
        return escaped(" ".join(value.split()))
    if isinstance(value, Mapping):
        return {harmless(key): harmless(member) for key, member in value.items()}
    return [harmless(member) for member in value] if isinstance(value, list | tuple) else value


def task_list(tasks: Sequence[Task], *, now: datetime, namespaces: bool) -> list[str]:
    """Write one line a task."""
    tasks = harmless(tasks)
    head = ("NAME", "PHASE", "ROUND", "READY", "SCORE", "STRATEGY", "REASON", "AGE")
    rows = []
    for task in tasks:
        status, metadata = task.get("status") or {}, task["metadata"]
        row = (
            metadata["name"],
            _coloured(phase_of(task)),
            status.get("round", {}).get("summary", "-"),
            status.get("learners", {}).get("summary", "-"),
            "-" if status.get("score") is None else f"{status['score']:.4g}",
            status.get("strategy") or "-",
            status.get("reason") or "-",
            age(metadata["creationTimestamp"], now),
        )
        rows.append((metadata["namespace"], *row) if namespaces else row)
    return table(("NAMESPACE", *head) if namespaces else head, rows)


def task_status(task: Task, events: Sequence[Mapping[str, Any]], *, now: datetime) -> list[str]:
    """Write all that a person wants to know of a task."""
    task, events = harmless(task), harmless(events)
    status = task.get("status") or {}
    blocks = [
        [f"{name + ':':<12}{value}" for name, value in _summary(task, status, now) if value],
        _titled("Learners", _learners(status)),
        _titled("Conditions", _conditions(status, now)),
        _titled("Events", _events(events, now)),
    ]
    return [line for index, block in enumerate(blocks) if block for line in ([""] if index else []) + block]


def waits_for(task: Task) -> str:
    """Tell what has to happen before a task goes on; how it ended, when it has."""
    status = task.get("status") or {}
    found = conditions.by_type(status)
    if not found:
        return _whoever_sees_to_it(task)
    if waits := _waits_by(found.get(Type.ACCEPTED, {})):
        return waits  # also of one that has failed by it: a mended spec is looked at anew
    if ended := conditions.ending(status):
        of_pods = (found.get(kind, {}) for kind in (Type.COORDINATOR_READY, Type.LEARNERS_READY))
        staying = [each["message"] for each in of_pods if each.get("reason") == Reason.FINISHED and each["message"]]
        return f"its pods to go; {'; '.join(staying)}" if staying else f"nothing: {_told(ended)}"
    if waits := _waits_by(found.get(Type.SUSPENDED, {})) or _waits_by(found.get(Type.PROGRESSING, {})):
        return waits
    if conditions.is_true(status, Type.PROGRESSING):
        learners = found.get(Type.LEARNERS_READY, {})
        whole = learners.get("reason") in (None, Reason.ALL_READY)
        return "the next round" if whole else f"the next round; {learners.get('message', '')}"
    kinds = (found.get(kind, {}) for kind in (Type.LEARNERS_READY, Type.COORDINATOR_READY, Type.PROGRESSING))
    told = [_told(each) for each in kinds if each and each["status"] != "True" and each["reason"] != Reason.FINISHED]
    return "; ".join(dict.fromkeys(told))


def age(since: str | None, now: datetime) -> str:
    """Write how long ago something was, as kubectl does: two units at most, fewer the longer it is."""
    moment = unstamp(since)
    if moment is None:
        return "-"
    seconds = max(0, round((now - moment).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    size, unit, part, lesser = next(scale[1:] for scale in _SCALES if seconds < scale[0])
    rest = seconds % size // part if part else 0
    return f"{seconds // size}{unit}" + (f"{rest}{lesser}" if rest else "")


def _summary(task: Task, status: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    metadata, spec, rounds = task["metadata"], task["spec"], status.get("round", {})
    reason = status.get("reason")
    yield "Task", f"{metadata['namespace']}/{metadata['name']}, made {age(metadata['creationTimestamp'], now)} ago"
    yield "Phase", _coloured(phase_of(task)) + (f" ({reason})" if reason else "")
    yield "Model", f"{spec['model']['name']} on {spec['dataLoader']['name']}, {status.get('strategy') or 'Vote'}"
    last = f", the last {age(rounds['lastTime'], now)} ago" if "lastTime" in rounds else ""
    yield (
        "Rounds",
        f"{rounds.get('current', 0)} of {spec['rounds']} decided, {rounds.get('accepted', 0)} accepted{last}",
    )
    yield "Latest", _latest(status.get("latest") or {})
    yield "Score", "" if status.get("score") is None else f"{status['score']:.4g}"
    yield "Learners", str(status.get("learners", {}).get("summary", "")) and f"{status['learners']['summary']} ready"
    yield "Ended", f"{age(status['completionTime'], now)} ago" if "completionTime" in status else ""
    yield "Waits for", waits_for(task)
    yield "Dashboard", str(status.get("dashboard", ""))


def _latest(latest: Mapping[str, Any]) -> str:
    if not latest:
        return ""
    who = f"proposed by {latest['proposer']}, " if latest.get("proposer") else ""
    verdict = "accepted" if latest.get("accepted") else "rejected"
    return (
        f"round {latest['round']}: {who}{verdict}, test score {score_text(latest.get('testScore'))}, "
        f"vote score {score_text(latest.get('voteScore'))}"
    )


def _learners(status: Mapping[str, Any]) -> list[str]:
    learners = status.get("learnerStatuses") or ()
    private = any("privacy" in learner for learner in learners)
    rows = []
    for learner in learners:
        row = [learner["name"], learner.get("state") or "-", score_text(learner.get("lastScore"))]
        if private:
            row.append(_epsilon(learner.get("privacy") or {}))
        rows.append([*row, str(learner.get("restarts", 0)), learner.get("message", "")])
    head = ("NAME", "STATE", "SCORE", *(("EPSILON",) if private else ()), "RESTARTS", "MESSAGE")
    return table(head, rows) if rows else []


def _epsilon(privacy: Mapping[str, Any]) -> str:
    spent, target = privacy.get("consumedEpsilon"), privacy.get("targetEpsilon")
    return "-" if spent is None else f"{spent:.3g}" + ("" if target is None else f"/{target:.3g}")


def _conditions(status: Mapping[str, Any], now: datetime) -> list[str]:
    rows = [
        (found["type"], found["status"], found["reason"], age(found["lastTransitionTime"], now), found["message"])
        for found in status.get("conditions") or ()
    ]
    return table(("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), rows) if rows else []


def _events(events: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    rows = []
    for event in events[-_EVENTS:]:
        when = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
        warns = event.get("type") == "Warning"
        kind = click.style("Warning", fg=_OTHERWISE) if warns else event.get("type", "")
        rows.append((age(when, now), kind, event.get("reason", ""), event.get("message", "")))
    return table(("AGE", "TYPE", "REASON", "MESSAGE"), rows) if rows else []


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _coloured(phase: str) -> str:
    return click.style(phase, fg=_COLOURS.get(phase, _OTHERWISE))


def _whoever_sees_to_it(task: Task) -> str:
    if is_managed_elsewhere(task):
        return f"{task['spec']['managedBy']}, which sees to it in the operator's place"
    return "an operator: none has looked at the task yet"


def _waits_by(condition: Mapping[str, Any]) -> str:
    match condition.get("reason"):
        case Reason.INVALID_SPEC:
            return f"a spec that is valid: {condition['message']}"
        case Reason.SUSPENDED:
            return f"somebody to resume it; {condition['message']}"
        case Reason.SUSPENDING:
            return f"its pods to go: {condition['message']}"
        case Reason.EXPORTING_MODEL | Reason.UPLOADING_RESULT:
            return f"its end: {condition['message']}"
    return ""


def _told(condition: Mapping[str, Any]) -> str:
    return str(condition.get("message") or condition["reason"])
