"""The chart's README: its values with their defaults, from values.yaml and the comments in it.

A comment that begins with ``# --`` describes the key below it, as in helm-docs; a key without one is a group of others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_HEAD = """\
# collective-operator

{description}

```sh
helm install collective helm/collective-operator --namespace collective-system --create-namespace
```

Needs Kubernetes {kubernetes}. An upgrade brings the new definition of CollectiveTask with it; an uninstallation keeps
the definition, and every task. [Monitoring](../../docs/monitoring.md) tells what `metrics` and `grafana` bring,
[security](../../docs/security.md) of rights and NetworkPolicies.

## Values

A value that is not in this table is an error, but for `enabled`: a chart that has this one as a part of it may name
that as the part's `condition`. The table is made from [values.yaml](values.yaml) by `make generate`.

| value | default | what |
|---|---|---|
"""


class UndescribedError(Exception):
    """A value has no description."""


def readme(chart: Path) -> str:
    """Write it.

    Raises
    ------
    UndescribedError
        A value has no ``# --`` comment, or a comment has no value.
    """
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    text = (chart / "values.yaml").read_text()
    told = _descriptions(text)
    rows = []
    for path, default in _leaves(yaml.safe_load(text), told):
        if path not in told:
            raise UndescribedError(f"values.yaml: {path} has no comment that begins with `# --`")
        rows.append(f"| `{path}` | `{json.dumps(default)}` | {told.pop(path)} |\n")
    if told:
        raise UndescribedError(f"values.yaml: a comment describes {', '.join(told)}, which is no value")
    oldest = str(about["kubeVersion"]).removeprefix(">=").removesuffix(".0-0")
    return _HEAD.format(description=about["description"], kubernetes=f"{oldest} or later") + "".join(rows)


def _descriptions(text: str) -> dict[str, str]:
    """Find the comments, by the path of the key that each stands above."""
    found: dict[str, str] = {}
    above: list[str] = []
    parents: list[str] = []
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("# -- "):
            above = [words.removeprefix("# -- ")]
        elif words.startswith("#") and above:
            above.append(words.removeprefix("#").strip())
        elif words and not words.startswith(("#", "-")):
            parents = [*parents[: (len(line) - len(line.lstrip())) // 2], words.partition(":")[0]]
            if above:
                found[".".join(parents)], above = " ".join(above), []
    return found


def _leaves(values: Mapping[str, Any], told: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk the values down to what is described as one."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value and path not in told:
            yield from _leaves(value, told, f"{path}.")
        else:
            yield path, value
