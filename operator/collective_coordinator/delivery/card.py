"""The model card: what was trained, on what, how well, and what it cost in privacy, beside the model it is about.

Laid out as cards on model hubs are: facts for programs in front, as YAML, then text for people. The facts are written
as JSON, which is YAML too (see `_json`), so that no name can break out of its line. In the text names stand as code for
that reason.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.config import Config
from collective_coordinator.delivery.facts import FileFact, essentials, flattened, version
from collective_coordinator.exports import Export
from collective_coordinator.history import SAFETENSORS
from collective_learner.wire.digest import name_of

CARD = "model-card.md"

_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def model_card(
    config: Config,
    snapshot: Snapshot,
    *,
    ended: tuple[str, str],
    files: Sequence[FileFact],
    exports: Sequence[Export],
    written: str,
) -> str:
    """Write the card.

    Parameters
    ----------
    config
        Of the task, as it was in force at the end.
    snapshot
        The last decision.
    ended
        Why the rounds are over: a reason and a message.
    files, exports
        What lies beside the card, and what became of other formats.
    written
        The time, as text.

    Returns
    -------
    str
        Markdown with a YAML head.
    """
    facts = _facts(config, snapshot, ended=ended, files=files, written=written)
    head = {
        "library_name": "collective-operator",
        "tags": ["collective-learning", "federated-learning", config.strategy.type],
        "collective": facts,
    }
    lines = ["---", *(f"{key}: {_json(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# {_plain(config.name)}", "", *_story(config, snapshot, ended)]
    lines += ["", "## Task", "", *_table(("field", "value"), flattened(facts["task"]).items())]
    lines += ["", "## Data", "", *_data(config, snapshot)]
    lines += ["", "## Scores", "", *_scores(config, snapshot)]
    lines += ["", "## Privacy", "", *_privacy(config, snapshot)]
    lines += ["", "## Files", ""]
    lines += _table(("file", "bytes", "SHA-256"), ((fact.name, fact.size, fact.sha256) for fact in files))
    lines += [f"\nNo {export.name}: `{_plain(export.message)}`" for export in exports if export.file is None]
    lines += ["", f"The weights' own digest, by which learners know them: `{facts['digest']}`."]
    if any(fact.name == SAFETENSORS for fact in files):
        lines += [
            "",
            "```python",
            "from safetensors.numpy import load_file",
            "",
            f'weights = load_file("{SAFETENSORS}")',
        ]
        lines += ["```"]
    return "\n".join([*lines, ""])


def _facts(
    config: Config, snapshot: Snapshot, *, ended: tuple[str, str], files: Sequence[FileFact], written: str
) -> dict[str, Any]:
    return {
        "namespace": config.namespace,
        "name": config.name,
        "uid": config.uid,
        "written": written,
        "reason": ended[0],
        "task": essentials(config),
        "rounds": snapshot.round,
        "accepted": snapshot.accepted,
        "testScore": snapshot.held.test_score,
        "voteScore": snapshot.held.vote_score,
        "best": {"round": snapshot.best.round, "testScore": snapshot.best.score},
        "examples": {name: snapshot.examples[name] for name in _names(config) if name in snapshot.examples},
        "privacy": {name: dict(snapshot.privacy[name]) for name in _names(config) if name in snapshot.privacy},
        "files": [{"name": fact.name, "bytes": fact.size, "sha256": fact.sha256} for fact in files],
        "digest": name_of(snapshot.weights.digest),
        "bestDigest": name_of(snapshot.best.weights.digest),
        "versions": {"collective-operator": version(), "python": platform.python_version()},
    }


def _story(config: Config, snapshot: Snapshot, ended: tuple[str, str]) -> list[str]:
    told = f"`{_plain(config.model.name)}`, trained by {len(config.learners)} learners, each beside its own data"
    how = f" in {snapshot.round} rounds of {config.strategy.type}, of which {snapshot.accepted} were accepted."
    return [told + how, "", f"Training ended with {ended[0]}: {_plain(ended[1])}"]


def _data(config: Config, snapshot: Snapshot) -> list[str]:
    loader = f"Read by `{_plain(config.data_loader.name)}` where they lie; they were moved nowhere, and where that is"
    lines = [f"{loader} is not told here."]
    told = [(name, snapshot.examples[name]) for name in _names(config) if name in snapshot.examples]
    if not told:
        return [*lines, "No learner told how many examples it has."]
    total = sum(count for _, count in told)
    lines += [f"{len(told)} of {len(config.learners)} learners told how many examples they trained on: {total} in all."]
    return [*lines, "", *_table(("learner", "examples"), told)]


def _scores(config: Config, snapshot: Snapshot) -> list[str]:
    held, best = snapshot.held, snapshot.best
    lines = [f"The model is of round {held.round}: mean test score {_number(held.test_score)}"]
    lines[0] += f", mean vote score {_number(held.vote_score)}."
    lines += [f"The best model is of round {best.round}: mean test score {_number(best.score)}.", ""]
    lines += ["Each learner's last test score, on its own data:", ""]
    scores = ((name, _number(snapshot.scores[name])) for name in _names(config) if name in snapshot.scores)
    return lines + _table(("learner", "test score"), scores)


def _privacy(config: Config, snapshot: Snapshot) -> list[str]:
    budgets = [(name, snapshot.privacy[name]) for name in _names(config) if name in snapshot.privacy]
    if not budgets:
        return ["No learner told of differential privacy: the model may tell something of single examples."]
    rows = (
        (
            name,
            _number(told.get("consumedEpsilon")),
            _number(told.get("targetEpsilon")),
            _number(told.get("consumedDelta")),
        )
        for name, told in budgets
    )
    lines = [f"{len(budgets)} of {len(config.learners)} learners trained with differential privacy.", ""]
    return lines + _table(("learner", "epsilon spent", "epsilon at most", "delta spent"), rows)


def _names(config: Config) -> list[str]:
    return [learner.name for learner in config.learners]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [[_plain(cell) for cell in row] for row in rows]
    shown = [[row[0], *(f"`{cell}`" if cell else "" for cell in row[1:])] for row in cells]
    return [_row(head), _row(["---"] * len(head)), *map(_row, shown)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _json(value: object) -> str:
    """Write JSON that YAML reads alike: to it two escapes are never one character, and some must be escaped."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: object) -> str:
    """Write a value on one line that neither a table nor code ends early in."""
    text = json.dumps(value) if isinstance(value, (Mapping, list, tuple, bool)) or value is None else str(value)
    return " ".join(text.split()).replace("`", "'").replace("|", "/").replace("<", "(").replace(">", ")")
