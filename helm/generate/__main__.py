"""Writes what is made from other files; with `--check`, tells whether it is current.

The dashboards come from the modules beside this one, the chart's table of values from values.yaml, and the reference of
a task's fields from the CRD.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import gpu, platform, task
from .readme import readme
from .reference import reference

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "collective-operator"


def made() -> dict[Path, str]:
    """Make everything, by where it belongs."""
    boards = {"platform": platform.dashboard(), "task": task.dashboard(), "gpu": gpu.dashboard()}
    encoder = JSONEncoder(indent=1, sort_keys=True, ensure_ascii=False)
    files = {CHART / "dashboards" / f"{name}.json": f"{encoder.encode(board)}\n" for name, board in boards.items()}
    return files | {
        CHART / "README.md": readme(CHART),
        ROOT / "docs" / "task.md": reference(ROOT / "crds" / "collectivetask.yaml"),
    }


def main() -> int:
    """Write what has changed; with --check, only name it and fail."""
    files = made()
    old = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in old:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not current: run `make generate`\n")
        return 1 if old else 0
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path])
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
