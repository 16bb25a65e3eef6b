"""Pictures of rounds: windows where there is a screen, files where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collective_learner import Result, Results, plot_results
from collective_learner.results import score_title

PROGRAM = """
import sys
from collective_learner import CollectivePlot, Result, Results, plot_votes
assert "matplotlib" not in sys.modules
results = Results([Result(votes=[True, True], vote_scores=[1, 2], test_scores=[0, 0])])
results.data.append(Result(votes=[True, False], vote_scores=[3, float("nan")], test_scores=[0, 0], block_proposer=0))
plot = CollectivePlot(score_name="loss")
plot.plot_results(results)
plot.plot_votes(results)
plot.plot_results_and_votes(results)
plot.block()
plot_votes(results, block=True)
print("pyplot", "matplotlib.pyplot" in sys.modules)
"""
WINDOWS = """
from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

class Manager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block=None):
        print("shown", [len(manager.canvas.figure.axes) for manager in Gcf.get_all_fig_managers()], block)

class FigureCanvas(FigureCanvasAgg):
    manager_class = Manager

FigureManager = Manager
"""


def drawn(folder: Path, **environment: str) -> str:
    fixed = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    fixed["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**fixed, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The last one is a window system that cannot be reached: no reason to lose a training.
@pytest.mark.parametrize("environment", [{}, {"MPLBACKEND": "tkagg"}], ids=str)
def test_without_a_screen_plots_are_files(tmp_path: Path, environment: dict[str, str]) -> None:
    output = drawn(tmp_path, **environment)
    for name in ("collective-results.png", "collective-votes.png"):
        assert output.count(str(tmp_path.resolve() / name)) == 1
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert ("pyplot False" in output) == (not environment)


def test_with_a_screen_plots_are_windows(tmp_path: Path) -> None:
    (tmp_path / "windows.py").write_text(WINDOWS)
    output = drawn(tmp_path, MPLBACKEND="module://windows")
    assert [path.name for path in tmp_path.glob("*.png")] == []
    assert [line for line in output.splitlines() if line.startswith("shown")] == [
        "shown [1] False",
        "shown [1] False",
        "shown [2] False",
        "shown [2] True",
        "shown [2, 1] False",
        "shown [2, 1] True",
    ]


def test_rounds_of_other_learners_are_refused() -> None:
    with pytest.raises(ValueError, match="n_learners: 3; the rounds are of 1"):
        plot_results(Results([Result(votes=[True], vote_scores=[1], test_scores=[1])]), 3)


def test_a_criterion_has_a_name() -> None:
    assert [score_title(each) for each in ("loss", score_title, Results())] == ["loss", "score_title", "Results"]
