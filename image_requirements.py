"""Prints what an image has to install, one requirement a line.

The Dockerfiles install dependencies in a layer of their own, before any source is copied, so that a change of the
source rebuilds seconds of work instead of minutes. pip cannot read extras out of pyproject.toml without building the
package, which needs the source.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def needs(pyproject: dict[str, Any], extra: str) -> Iterator[str]:
    """Yield the requirements of one extra; an extra that names others of this project brings theirs."""
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    if extra not in extras:
        raise SystemExit(f"EXTRAS: {extra!r} is none of {', '.join(extras)}")
    for requirement in extras[extra]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own is None:
            yield requirement
            continue
        for other in own[1].split(","):
            yield from needs(pyproject, other.strip())


def main(extras: str) -> None:
    """Print the requirements of ``extras``, comma-separated; ``build`` is what building the package itself takes."""
    pyproject = tomllib.loads(Path("pyproject.toml").read_text())
    if extras == "build":
        found = list(pyproject["build-system"]["requires"])
    else:
        found = list(pyproject["project"]["dependencies"])
        for extra in extras.split(","):
            found += needs(pyproject, extra.strip())
    sys.stdout.write("".join(f"{requirement}\n" for requirement in dict.fromkeys(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
