"""Pictures of rounds that a script drives itself: on the screen where there is one, else in a file.

On a server, in a container or over ssh there is no screen, and a plot that needs one would end the script after all its
training. Then the picture is a PNG in the working directory, replaced after every round, and its place is told once.

matplotlib is imported when the first picture is drawn, and its global state (pyplot) only where windows are opened.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collective_learner.results import Results, score_title

if TYPE_CHECKING:
    from types import ModuleType

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FILE_BACKENDS = frozenset({"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"})
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
_DASHES = ("-", "--", "-.", ":")
_MARKS = {"voted for": ("#56B4E9", "s"), "voted against": ("#D55E00", "x"), "proposed": ("#000000", "*")}


class CollectivePlot:
    """A picture that grows with the rounds.

    Parameters
    ----------
    score_name
        What the vote is about: a text, or a learner's ``criterion``.
    file
        Where the picture goes when there is no screen.
    """

    def __init__(
        self, score_name: str | Callable[..., Any] | object = "score", *, file: str | Path = "collective-results.png"
    ) -> None:
        self.score_name = score_title(score_name)
        self.file = Path(file)
        self._pyplot: ModuleType | None = None
        self._figure: Figure | None = None
        self._told = False

    def plot_results(self, results: Results) -> None:
        """Draw each learner's test and vote scores by round."""
        self._draw([lambda axes: _draw_scores(axes, results, self.score_name)])

    def plot_votes(self, results: Results) -> None:
        """Draw who voted how in which round, and which proposals were accepted."""
        self._draw([lambda axes: _draw_votes(axes, results)])

    def plot_results_and_votes(self, results: Results) -> None:
        """Draw both, one above the other."""
        self._draw([lambda axes: _draw_scores(axes, results, self.score_name), lambda axes: _draw_votes(axes, results)])

    def block(self) -> None:
        """Wait until the window is closed; where the picture is a file there is nothing to wait for."""
        if self._pyplot is not None:
            self._pyplot.show(block=True)

    def _draw(self, panels: Sequence[Callable[[Axes], None]]) -> None:
        figure = self._figure or self._new_figure()
        self._figure = figure
        figure.clear()
        figure.set_size_inches(9, 4 * len(panels))
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for each, draw in zip(axes, panels, strict=True):
            draw(each)
        if self._pyplot is not None:
            figure.canvas.draw_idle()
            self._pyplot.pause(0.01)  # lets the window show it, and does not wait for anyone
            return
        aside = self.file.with_name(f".{self.file.name}.tmp")
        figure.savefig(aside, format="png")
        aside.replace(self.file)
        if not self._told:
            self._told = True
            click.echo(f"there is no screen here: the plot is in {self.file.resolve()}")

    def _new_figure(self) -> Figure:
        try:
            if has_screen():
                self._pyplot = importlib.import_module("matplotlib.pyplot")
                self._pyplot.ion()
                figure: Figure = self._pyplot.figure(layout="constrained")
                return figure
            made: Figure = importlib.import_module("matplotlib.figure").Figure(layout="constrained", dpi=120)
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "matplotlib":
                raise
            raise ModuleNotFoundError(
                "plots need matplotlib, which is not installed: pip install 'collective-operator[plots]'",
                name="matplotlib",
            ) from missing
        return made


def plot_results(
    results: Results,
    n_learners: int,
    block: bool = False,
    score_name: str | Callable[..., Any] | object = "score",
) -> None:
    """Draw each learner's scores by round, in a window or in ``collective-scores.png``.

    Parameters
    ----------
    results
        At least one round.
    n_learners
        How many learners there are.
    block
        Wait until the window is closed.
    score_name
        What the vote is about: a text, or a learner's ``criterion``.

    Raises
    ------
    ValueError
        The rounds are of another number of learners.
    """
    there = {len(result.votes) for result in results.data}
    if there - {n_learners}:
        raise ValueError(f"n_learners: {n_learners}; the rounds are of {', '.join(map(str, sorted(there)))}")
    plot = CollectivePlot(score_name, file="collective-scores.png")
    plot.plot_results(results)
    if block:
        plot.block()


def plot_votes(results: Results, block: bool = False) -> None:
    """Draw who voted how in which round, in a window or in ``collective-votes.png``; `block` waits for the window."""
    plot = CollectivePlot(file="collective-votes.png")
    plot.plot_votes(results)
    if block:
        plot.block()


def has_screen() -> bool:
    """Tell whether a window, or a notebook's cell, would show a picture."""
    matplotlib = importlib.import_module("matplotlib")
    headless = sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
    if headless and matplotlib.get_backend(auto_select=False) is None:
        return False  # nobody chose a backend, and to have one found would load them all
    pyplot = importlib.import_module("matplotlib.pyplot")
    backend: str = matplotlib.get_backend()
    try:
        pyplot.switch_backend(backend)
    except ImportError:  # it needs a screen, or a toolkit that is not installed
        return False
    return backend.lower() not in _FILE_BACKENDS


def _draw_scores(axes: Axes, results: Results, score_name: str) -> None:
    rounds = range(len(results.data))
    count = max((len(result.votes) for result in results.data), default=0)
    with_test = any(any(result.test_scores) for result in results.data)
    for index in range(count):
        style: dict[str, Any] = {"color": _COLOURS[index % len(_COLOURS)], "linestyle": _DASHES[index % len(_DASHES)]}
        axes.plot(rounds, [result.vote_scores[index] for result in results.data], label=f"vote {index}", **style)
        if with_test:
            scores = [result.test_scores[index] for result in results.data]
            axes.plot(rounds, scores, label=f"test {index}", **style, marker="o", markersize=3)
    axes.set_ylabel(score_name)
    _count_rounds(axes)
    axes.grid(alpha=0.3)
    if count:
        axes.legend(fontsize=8, ncols=2)


def _draw_votes(axes: Axes, results: Results) -> None:
    count = max((len(result.votes) for result in results.data), default=0)
    places: dict[str, list[tuple[int, int]]] = {what: [] for what in _MARKS}
    for number, result in enumerate(results.data):
        if result.vote and result.block_proposer is not None:
            axes.axvspan(number - 0.5, number + 0.5, color="#009E73", alpha=0.15, linewidth=0)
        for index, vote in enumerate(result.votes):
            what = "proposed" if index == result.block_proposer else "voted for" if vote else "voted against"
            places[what].append((number, index))
    for what, (colour, marker) in _MARKS.items():
        if places[what]:
            axes.scatter(*zip(*places[what], strict=True), color=colour, marker=marker, label=what)
    axes.set_ylabel("learner")
    axes.set_yticks(range(count))
    _count_rounds(axes)
    if count:
        axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15), title="shaded: accepted")


def _count_rounds(axes: Axes) -> None:
    ticker = importlib.import_module("matplotlib.ticker")
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
