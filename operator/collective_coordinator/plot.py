"""Draws rounds.jsonl as a picture: how the scores went, and who voted how.

A program of its own (``python -m collective_coordinator.plot ROUNDS PICTURE``): matplotlib is large and slow to load,
and the coordinator never does.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]

# Okabe and Ito's colours, told apart by every kind of colour vision, without yellow, which white swallows.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_CELLS = (
    ("took no part", "#EEEEEE"),
    ("tested", "#BBBBBB"),
    ("voted against", "#D55E00"),
    ("voted for", "#56B4E9"),
    ("trained", "#000000"),
)
"""What a learner did in a round, and its colour."""
_ABSENT, _TESTED, _AGAINST, _FOR, _TRAINED = range(len(_CELLS))
_NAMED_LINES = 8
"""Up to so many learners each has a line of its own; of more, the spread is shown."""
_NAMED_ROWS = 30
_FEW_ROUNDS = 100
"""Up to so many, each round is an object of its own to the eye."""
_ROW_INCHES = 0.22


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """Read the rounds; a last line that is only half there is left out."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def learners_of(rounds: Sequence[Record]) -> list[str]:
    """Name all learners that took part, ``learner-10`` after ``learner-9``."""
    names = {name for record in rounds for name in (*_trainers(record), *record["votes"], *record["testScores"])}
    return sorted(names, key=lambda name: (len(name), name))


def _trainers(record: Record) -> Sequence[str]:
    """Name who trained; the lines of one proposer alone may tell no more."""
    proposer = record["proposer"]
    return record.get("trainers") or ([proposer] if proposer else [])


def draw(rounds: Sequence[Record], picture: Path) -> None:
    """Draw the rounds.

    Parameters
    ----------
    rounds
        Lines of rounds.jsonl, at least one.
    picture
        The picture to write, of the kind that its suffix names (png, svg, pdf); replaced at once.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - the reason why this is a program of its own

    learners = learners_of(rounds)
    # Rows high enough to be read, and the whole no taller than a page, however many they are.
    grid_inches = min(9.0, max(1.2, _ROW_INCHES * len(learners)))
    score_inches = 3.6
    figure = Figure(figsize=(9, score_inches + grid_inches + 1.4), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[score_inches, grid_inches])
    _draw_scores(above, rounds, learners)
    _draw_votes(below, rounds, learners)
    accepted = sum(bool(record["accepted"]) for record in rounds)
    counts = f"{_counted(len(learners), 'learner')}, {_counted(len(rounds), 'round')}, {accepted} accepted"
    figure.suptitle(counts, fontsize=12)
    aside = picture.with_name(f".{picture.name}.tmp")
    figure.savefig(aside, format=picture.suffix.lower().removeprefix(".") or "png")
    aside.replace(picture)


def _kind(rounds: Sequence[Record]) -> str:
    """Choose which scores to draw: test scores, unless nobody has a test set (which counts as 0)."""
    return "testScores" if any(any(record["testScores"].values()) for record in rounds) else "voteScores"


def _series(rounds: Sequence[Record], kind: str, learner: str) -> list[float]:
    scores = [record[kind].get(learner) for record in rounds]
    return [float("nan") if score is None else score for score in scores]


def _alone(scores: Sequence[float]) -> list[int]:
    """Find what no line leads to: the only round, or one between rounds that a learner took no part in."""
    around = [math.nan, *scores, math.nan]
    return [
        index
        for index, (before, score, after) in enumerate(zip(around, scores, around[2:], strict=False))
        if not math.isnan(score) and math.isnan(before) and math.isnan(after)
    ]


def _dots(scores: Sequence[float]) -> dict[str, Any]:
    return {"marker": ".", "markevery": alone} if (alone := _alone(scores)) else {}


def _draw_scores(axes: Axes, rounds: Sequence[Record], learners: Sequence[str]) -> None:
    numbers = [record["round"] for record in rounds]
    kind = _kind(rounds)
    table = {learner: _series(rounds, kind, learner) for learner in learners}
    few = len(learners) <= _NAMED_LINES
    for position, (learner, scores) in enumerate(table.items()):
        axes.plot(
            numbers,
            scores,
            color=_LINES[position % len(_LINES)] if few else "#BBBBBB",
            linestyle=_DASHES[position % len(_DASHES)] if few else "-",
            linewidth=1.3 if few else 0.6,
            **_dots(scores),
            # Beyond a few, one line speaks for all in the legend.
            label=learner if few else "each learner" if position == 0 else None,
        )
    means = [_mean([scores[index] for scores in table.values()]) for index in range(len(rounds))]
    axes.plot(numbers, means, color="#000000", linewidth=2.4, alpha=0.75, label="mean", **_dots(means))
    taken = [index for index, record in enumerate(rounds) if record["accepted"]]
    axes.plot(
        [numbers[index] for index in taken],
        [means[index] for index in taken],
        linestyle="none",
        marker="o",
        markersize=5 if len(rounds) <= _FEW_ROUNDS else 2,
        color="#000000",
        markerfacecolor="#FFFFFF",
        label="accepted",
    )
    axes.set_ylabel(f"{'test' if kind == 'testScores' else 'vote'} score of the proposal")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="best")


def _draw_votes(axes: Axes, rounds: Sequence[Record], learners: Sequence[str]) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    numbers = [record["round"] for record in rounds]
    cells = [[_cell(record, learner) for record in rounds] for learner in learners]
    axes.pcolormesh(
        _edges(numbers),
        [index - 0.5 for index in range(len(learners) + 1)],
        cells,
        cmap=ListedColormap([colour for _, colour in _CELLS]),
        norm=BoundaryNorm([index - 0.5 for index in range(len(_CELLS) + 1)], len(_CELLS)),
        # Lines between cells help while there are few; among many they would be all there is to see.
        edgecolors="white" if len(rounds) <= _FEW_ROUNDS else "none",
        linewidth=0.4,
    )
    axes.invert_yaxis()
    step = -(-len(learners) // _NAMED_ROWS)
    axes.set_yticks(range(0, len(learners), step), learners[::step], fontsize=8)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    there = {cell for row in cells for cell in row}
    shown = [cell for index, cell in enumerate(_CELLS) if index in there]
    axes.legend(
        handles=[Patch(color=colour, label=label) for label, colour in reversed(shown)],
        ncols=len(shown),
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.9 / _inches_high(axes)),
        frameon=False,
    )


def _inches_high(axes: Axes) -> float:
    """Estimate the height of the lower axes, so that its legend keeps its distance at every size."""
    low, high = sorted(axes.get_ylim())
    return min(9.0, max(1.2, _ROW_INCHES * (high - low))) * 1.5


def _cell(record: Record, learner: str) -> int:
    """Tell what a learner did. Where the trainers vote too, their votes are the news."""
    vote = record["votes"].get(learner)
    if vote is not None:
        return _FOR if vote else _AGAINST
    if learner in _trainers(record):
        return _TRAINED
    return _ABSENT if record["testScores"].get(learner) is None else _TESTED


def _edges(numbers: Sequence[int]) -> list[float]:
    return [numbers[0] - 0.5, *(number + 0.5 for number in numbers)]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _mean(scores: Sequence[float]) -> float:
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else float("nan")


def main(arguments: Sequence[str]) -> int:
    """Draw what the command line names.

    Returns
    -------
    int
        0 drawn, 1 could not be drawn (one line on stderr says why), 2 wrong arguments.
    """
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m collective_coordinator.plot ROUNDS.jsonl PICTURE.png\n")
        return 2
    source, picture = map(Path, arguments)
    try:
        rounds = read_rounds(source)
        if not rounds:
            raise ValueError("holds no round yet")
        draw(rounds, picture)
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"{missing.name} is not installed: pip install 'collective-operator[run]'\n")
        return 1
    except OSError as error:
        which = source if error.filename == str(source) else picture
        sys.stderr.write(f"{which}: {error.strerror or error}\n")
        return 1
    except (ValueError, KeyError) as error:
        sys.stderr.write(f"{source}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
