"""``python -m tests.quality``: measure, and write ``docs/quality.md``'s table and plot.

Every figure is kept in a file as soon as it is there, so that a run that was interrupted goes on where it was. Each
stands beside a digest of the code that made it, and one that other code made is measured again: a table never mixes
two versions, nor another checkout's packages with this one's.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from .code import ROOT, digest_code
from .methods import METHODS, Result
from .report import write_page, write_plot
from .sites import Setting

SKEW = 0.93
_DIGITS = {"model": "SKLEARN_DIGITS", "loader": "DIGITS", "batch_size": 512}
_CNN = {"model": "TORCH_DIGITS", "loader": "DIGITS", "passes": 60}
_CANCER = {"model": "SKLEARN_BREAST_CANCER", "loader": "BREAST_CANCER", "batch_size": 512}
SETTINGS = {
    f"{name}, {split}": Setting(**parameters, skew=skew)
    for name, parameters in (("digits, logistic", _DIGITS), ("breast cancer, logistic", _CANCER), ("digits, CNN", _CNN))
    for split, skew in (("iid", 0.0), ("skewed", SKEW))
}


def main() -> None:
    """Measure what is not there yet, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("dist/quality.jsonl"), help="kept figures (%(default)s)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page is (%(default)s)")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the models are small: threads would wait for each other
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    code = digest_code(SETTINGS, METHODS)
    results = _read(arguments.results, code=code)
    print(f"code {code} of {ROOT}; {len(results)} figures are there", flush=True)
    if not arguments.report_only:
        _measure(results, seeds=arguments.seeds, path=arguments.results, code=code)
    table = {
        title: {
            method.name: [
                results[title, method.name, seed]
                for seed in range(arguments.seeds)
                if (title, method.name, seed) in results
            ]
            for method in METHODS
        }
        for title in SETTINGS
    }
    write_page(arguments.docs / "quality.md", table)
    write_plot(arguments.docs / "images" / "quality.png", table)


def _measure(results: dict[tuple[str, str, int], Result], *, seeds: int, path: Path, code: str) -> None:
    for seed in range(seeds):
        for title, setting in SETTINGS.items():
            for method in METHODS:
                key = (title, method.name, seed)
                # Averaging more often is for sites that differ; where they do not, it is time spent for nothing.
                if key in results or (setting.skew == 0 and method.epochs):
                    continue
                started = time.process_time()
                results[key] = method.run(setting, seed)
                print(
                    f"seed {seed}, {title}, {method.name}: {results[key].accuracy:.3f}, "
                    f"{time.process_time() - started:.1f} s",
                    flush=True,
                )
                with path.open("a") as file:
                    file.write(json.dumps({"code": code, "key": key, "result": asdict(results[key])}) + "\n")


def _read(path: Path, *, code: str) -> dict[tuple[str, str, int], Result]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {tuple(line["key"]): Result(**line["result"]) for line in lines if line["code"] == code}


if __name__ == "__main__":
    main()
