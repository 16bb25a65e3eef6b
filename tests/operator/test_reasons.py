"""The words of conditions and Events are closed sets: the coordinator's own among them, and each of them documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from collective_operator import reasons
from collective_operator.api.task import Policy
from collective_operator.reasons import EVENTS, REASONS, Reason, Type
from collective_operator.status import judged

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "conditions.md").read_text()
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()


def verdicts() -> Iterator[str]:
    """Find the coordinator's words in its source: what it fails with, and what it returns as a reason to end."""
    for path in sorted((ROOT / "operator" / "collective_coordinator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            first: ast.expr | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "TaskFailedError":
                first = node.args[0]
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
                first = node.value.elts[0]
            elif isinstance(node, ast.Dict):
                keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
                first = node.values[keys.index("reason")] if "reason" in keys and "phase" in keys else None
            if isinstance(first, ast.Constant) and re.fullmatch(r"[A-Z][A-Za-z]+", str(first.value)):
                yield str(first.value)


def test_the_coordinators_words_are_known() -> None:
    assert set(verdicts()) == reasons._COMPLETE_VERDICTS | reasons._FAILED_VERDICTS


def test_every_reason_is_of_some_condition_or_event() -> None:
    assert frozenset().union(*REASONS.values(), EVENTS) == set(Reason)
    assert list(REASONS) == list(Type)


def test_every_trouble_of_a_learner_has_its_place_among_them() -> None:
    assert set(judged._FIRST) == reasons._LEARNER_TROUBLE


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    assert found, f"no section {title}"
    return found[1]


def listed(text: str) -> set[str]:
    """The words in the first column of a section's table; a cell may name several."""
    cells = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([A-Za-z]+)`", cell)}


def test_the_documented_reasons_are_those_that_there_are() -> None:
    for kind in Type:
        assert listed(section(kind)) == set(REASONS[kind]), kind
    assert listed(section("Events")) == set(EVENTS)


def test_troubleshooting_has_every_reason_once_and_what_to_look_at_and_to_do() -> None:
    nothing_to_do = set(
        re.findall(r"`([A-Za-z]+)`", "".join(re.findall(r"^\| (`.*?) \|", TROUBLESHOOTING, re.MULTILINE)))
    )
    sections = re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", TROUBLESHOOTING, re.DOTALL | re.MULTILINE)
    headings = [name for name, _ in sections]
    assert {*headings} | nothing_to_do == set(Reason)
    assert len(headings) + len(nothing_to_do) == len(Reason)
    assert {*headings} >= reasons.TROUBLE
    for name, text in sections:
        cause, look, do = re.split(r"^```(?:sh)?\n", text, flags=re.MULTILINE)
        assert len(cause.split()) > 5 and look.strip() and len(do.split()) > 4, name


def test_the_bounds_in_the_text_are_the_defaults() -> None:
    policy = Policy()
    assert f"`policy.preRunningDeadlineSeconds` ({policy.pre_running_deadline_seconds})" in DOCUMENT
    assert f"`policy.backoff.limit` ({policy.backoff.limit})" in DOCUMENT
