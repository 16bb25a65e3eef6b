"""`python -m tests.monitoring [FOLDER [SECONDS]]`: the dashboards as pictures, of a task that trains meanwhile."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from ..cluster.control_plane import HOW_TO, find_binaries
from .lab import lab
from .pictures import View, draw
from .test_scrape import VARIABLES
from .tools import DASHBOARDS, ROOT, find


def main(folder: Path, seconds: float) -> None:
    """Draw what there is to see; a picture of GPUs wants a machine that has some."""
    binaries = find_binaries()
    assert binaries, HOW_TO
    with tempfile.TemporaryDirectory() as scratch, lab(binaries, find("prometheus"), Path(scratch)) as running:
        ask = running.prometheus.series
        running.run.until(lambda: ask("sum(collective_rounds_total) > 3"), timeout_s=180)
        start = time.time() - 5
        running.run.until(lambda: time.time() > start + seconds / 2, timeout_s=seconds)
        running.kill_a_learner()
        running.run.until(lambda: time.time() > start + seconds, timeout_s=seconds)
        stop = time.time()
        for path in DASHBOARDS:
            if path.stem == "gpu" and not ask("collective_gpu_memory_bytes"):
                continue
            variables = {**VARIABLES, "__rate_interval": "20s"} | ({} if path.stem == "task" else {"task": ".*"})
            view = View(running.prometheus, variables, start, stop)
            draw(json.loads(path.read_text()), view, folder / f"dashboard-{path.stem}.png")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]) if given else ROOT / "docs" / "images", float(given[1]) if len(given) > 1 else 90)
