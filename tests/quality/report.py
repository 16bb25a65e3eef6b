"""What was measured, as a table for people and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from .methods import Result

Table = Mapping[str, Mapping[str, Sequence[Result]]]
"""By setting, by method, one result a seed."""

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_ROUNDING = 5e-7
_PLAIN = ("Vote", "FedAvg", "FedAvg, 1 pass")
_SHORTER = ("FedAvg", "FedAvg, 5 passes", "FedAvg, 2 passes", "FedAvg, 1 pass")
_GROUPS = (("centralised", "alone"), ("Vote",))
_COLOURS = {"reference": "#555555", "vote": "#D55E00", "average": "#0072B2", "short": "#009E73"}


def write_page(page: Path, table: Table) -> None:
    """Put the tables between the page's two marks; what people wrote around them stays.

    Raises
    ------
    ValueError
        The page lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page}: needs one line {BEGIN!r} and one {END!r} after it")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + BEGIN, *_tables(table), END + after]), encoding="utf-8")


def _tables(table: Table) -> list[str]:
    counts = sorted({len(results) for methods in table.values() for results in methods.values() if results} or {0})
    seeds = " to ".join(str(count) for count in sorted({counts[0], counts[-1]}))
    titles = list(table)
    methods = list(next(iter(table.values())))
    lines = ["", f"Accuracy on the common test set: median of {seeds} seeds (lowest to highest).", ""]
    lines += _rows(
        ["", *titles],
        [
            [name, *(_spread([result.accuracy for result in table[title][name]]) for title in titles)]
            for name in methods
        ],
    )
    skewed = [title for title in titles if title.endswith("skewed")]
    lines += [
        "",
        "What the gate costs or brings where sites differ, by how long a training is: mean difference seed by seed, "
        "and its standard error.",
        "",
    ]
    lines += _rows(
        ["", *skewed],
        [[name, *(_difference(_gains(table[title], name)) for title in skewed)] for name in _SHORTER],
    )
    lines += [
        "",
        "Rounds accepted, of all seeds together, and the largest step for the worse that the voters' mean loss "
        "ever made from one accepted round to the next:",
        "",
    ]
    voted = [name for name in methods if name in _PLAIN or "gated" in name]
    lines += _rows(["", *titles], [[name, *(_steps(table[title][name]) for title in titles)] for name in voted])
    return [*lines, "", "What is wanted, and whether it is reached:", "", *_wanted(table), ""]


def _wanted(table: Table) -> list[str]:
    rows = [["wanted", "measured", "reached"]]
    for title, least in (("digits, logistic, skewed", 0.91), ("digits, CNN, skewed", 0.83)):
        if reached := _median(table, title, "FedAvg"):
            rows.append([f"FedAvg on {title}: at least {least}", f"{reached:.3f}", _answer(reached >= least)])
    for title in table:
        rows += _gated(table, title)
    gated = [
        result for methods in table.values() for name, each in methods.items() if "gated" in name for result in each
    ]
    if gated:
        worst = max(result.worst_step for result in gated)
        wanted = "Behind the gate, no accepted round is worse for the voters' mean loss than the one before"
        held = f"never in {sum(result.accepted for result in gated)} accepted rounds" if worst <= _ROUNDING else ""
        rows.append([wanted, held or f"+{worst:.4f}", _answer(worst <= _ROUNDING)])
    title = "digits, CNN, skewed"
    averaging = {name: _median(table, title, name) for name in table.get(title, ()) if name not in _GROUPS[0]}
    if averaging and (central := _median(table, title, "centralised")):
        best = max(averaging, key=lambda name: averaging[name])
        gap = central - averaging[best]
        rows.append(
            [f"A strategy within 0.05 of centralised on {title}", f"{best}: {gap:.3f} below", _answer(gap <= 0.05)]
        )
    return _rows(rows[0], rows[1:])


def _gated(table: Table, title: str) -> list[list[str]]:
    """Judge what a gate costs; two standard errors are noise."""
    gains = _gains(table[title], "FedAvg")
    if len(gains) < 2:
        return []
    reached = statistics.fmean(gains) + 2 * _standard_error(gains) >= 0
    return [
        [
            f"FedAvg, gated no worse than FedAvg within noise on {title}",
            f"{_difference(gains)} (mean difference seed by seed, and its standard error)",
            _answer(reached),
        ]
    ]


def _gains(methods: Mapping[str, Sequence[Result]], name: str) -> list[float]:
    """Subtract seed by seed: which shards a seed makes decides more than a gate does."""
    pairs = zip(methods.get(name, ()), methods.get(f"{name}, gated", ()), strict=False)
    return [with_gate.accuracy - without.accuracy for without, with_gate in pairs]


def _standard_error(gains: Sequence[float]) -> float:
    return statistics.stdev(gains) / math.sqrt(len(gains))


def _difference(gains: Sequence[float]) -> str:
    return f"{statistics.fmean(gains):+.4f} ± {_standard_error(gains):.4f}" if len(gains) > 1 else ""


def _median(table: Table, title: str, name: str) -> float:
    results = table.get(title, {}).get(name, ())
    return statistics.median(result.accuracy for result in results) if results else 0.0


def _answer(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"**{statistics.median(values):.3f}** ({min(values):.3f} to {max(values):.3f})"


def _steps(results: Sequence[Result]) -> str:
    if not results:
        return ""
    accepted, rounds = sum(result.accepted for result in results), sum(result.rounds for result in results)
    worst = max(result.worst_step for result in results)
    return f"{accepted} of {rounds}, " + (f"+{worst:.3f}" if worst > _ROUNDING else "none")


def write_plot(picture: Path, table: Table) -> None:
    """Draw each setting's methods: the median as a dot, all seeds as the line through it."""
    titles = list(table)
    columns = (len(titles) + 1) // 2
    figure = Figure(figsize=(4 * columns + 1, 8), dpi=110, layout="constrained")
    # Iid above skewed: settings come in such pairs.
    rows = [max((len(_measured(table[title])) for title in titles[row::2]), default=0) for row in range(2)]
    axes = figure.subplots(
        2, columns, sharex=True, sharey="row", squeeze=False, height_ratios=[max(count, 1) for count in rows]
    )
    for index, title in enumerate(titles):
        panel = axes[index % 2][index // 2]
        names = _measured(table[title])
        for row, name in enumerate(names):
            values = [result.accuracy for result in table[title][name]]
            colour = _colour(name)
            panel.plot([min(values), max(values)], [row, row], color=colour, linewidth=3, alpha=0.4)
            panel.plot([statistics.median(values)], [row], "o", color=colour, markersize=6)
        if best := [result.accuracy for result in table[title].get("centralised", ())]:
            panel.axvline(statistics.median(best), color=_COLOURS["reference"], linestyle=":", linewidth=1)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(title, fontsize=11)
        panel.grid(axis="x", alpha=0.3)
    for first, *_ in axes:
        first.invert_yaxis()
    axes[0][0].set_xlim(0, 1.02)
    figure.supxlabel("accuracy on the common test set: median, lowest to highest; dotted: centralised", fontsize=10)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, format="png")


def _measured(methods: Mapping[str, Sequence[Result]]) -> list[str]:
    return [name for name, results in methods.items() if results]


def _colour(name: str) -> str:
    if name in _GROUPS[0]:
        return _COLOURS["reference"]
    if name in _GROUPS[1]:
        return _COLOURS["vote"]
    return _COLOURS["short" if "pass" in name else "average"]
