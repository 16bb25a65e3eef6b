"""The version, in every place that states it.

A release whose chart names another version than its wheel, or whose images are not those that its chart asks for, is
found out by whoever installs it; so all places are compared before anything is built, and written by one command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from release.errors import ReleaseError

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
PYPROJECT = Path("pyproject.toml")
CHART = Path("helm/collective-operator")
CHANGES = Path("CHANGELOG.md")
UNRELEASED = "## [Unreleased]"

_PLACES = (
    (PYPROJECT, re.compile(r'(?m)^(version = ")([^"]*)(")$')),
    (CHART / "Chart.yaml", re.compile(r"(?m)^(version: )(\S*)()$")),
    (CHART / "Chart.yaml", re.compile(r"(?m)^(appVersion: )(\S*)()$")),
)
_TAG = re.compile(r"(?m)^  (?:tag|digest): (.*)$")
_HEADING = re.compile(r"(?m)^## \[([^]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$")


def checked(text: str) -> str:
    """Return a version as it was given.

    Raises
    ------
    ReleaseError
        It is not three numbers.
    """
    if not VERSION.fullmatch(text):
        raise ReleaseError(f"VERSION: {text!r} is no version: three numbers are, such as 0.1.0")
    return text


def stated(root: Path) -> str:
    """Return the version that pyproject.toml states."""
    path, pattern = _PLACES[0]
    return _found(root, path, pattern)[2]


def disagreements(root: Path, version: str) -> Iterator[str]:
    """Yield, in a line each, what in the tree is not of this version."""
    for path, pattern in _PLACES:
        found = _found(root, path, pattern)
        if found[2] != version:
            yield f"{path}: {found[0]} is not of {version}"
    values = CHART / "values.yaml"
    for tag in _TAG.finditer((root / values).read_text()):
        if tag[1] != '""':  # empty: the chart's appVersion
            yield f"{values}: {tag[0].strip()} goes before the chart's appVersion; it must be empty"
    headings = dict(_HEADING.findall((root / CHANGES).read_text()))
    if version not in headings:
        yield f"{CHANGES}: no heading says ## [{version}] - YYYY-MM-DD"
    elif not headings[version]:
        yield f"{CHANGES}: the heading of {version} has no date"


def write(root: Path, version: str, today: date) -> list[Path]:
    """Write a version into every place; what `CHANGELOG.md` has under Unreleased becomes this version's.

    Parameters
    ----------
    root
        Of the tree.
    version
        The one that is to be released.
    today
        For the heading.

    Returns
    -------
    list of Path
        What has changed, relative to `root`.

    Raises
    ------
    ReleaseError
        A place is not as it should be; nothing was written.
    """

    def dated(changes: str) -> str:
        if version in dict(_HEADING.findall(changes)):
            return changes
        if UNRELEASED not in changes:
            raise ReleaseError(f"{CHANGES}: neither {UNRELEASED!r} nor a heading of {version} is there")
        return changes.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{version}] - {today.isoformat()}", 1)

    edits: list[tuple[Path, Callable[[str], str]]] = [(CHANGES, dated)]
    for path, pattern in _PLACES:
        _found(root, path, pattern)
        edits.append((path, lambda text, pattern=pattern: pattern.sub(rf"\g<1>{version}\g<3>", text)))  # type: ignore[misc]
    texts = {path: (root / path).read_text() for path, _ in edits}
    before = dict(texts)
    for path, edit in edits:
        texts[path] = edit(texts[path])
    changed = [path for path in texts if texts[path] != before[path]]
    for path in changed:
        (root / path).write_text(texts[path])
    return changed


def _found(root: Path, path: Path, pattern: re.Pattern[str]) -> re.Match[str]:
    found = pattern.search((root / path).read_text())
    if found is None:
        raise ReleaseError(f"{path}: no line is like {pattern.pattern}")
    return found
