"""Draws dashboards as Grafana lays them out, from what a real Prometheus answers: to be looked at, and for docs/."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from PIL import Image

from .expressions import Expression, panels
from .lab import Prometheus

PAPER, INK, FAINT = "#181b1f", "#ccccdc", "#2c3235"
NAMED = {"green": "#73bf69", "red": "#f2495c", "blue": "#5794f2", "white": "#ffffff", "dark-green": "#37872d"}
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"]
UNIT_INCHES = 0.62
SCALES = {"bytes": ("B", 1024), "Bps": ("B/s", 1000), "short": ("", 1000), "eps": (" ex/s", 1000)}
SUFFIXES = {"s": " s", "ops": " /s", "reqps": " /s", "cpm": " /min", "watt": " W", "celsius": " °C"}


@dataclass(frozen=True)
class View:
    """Where the data comes from, which stretch of it is shown, and with which values of the variables."""

    prometheus: Prometheus
    variables: Mapping[str, str]
    start: float
    stop: float

    def lines(self, target: Mapping[str, Any]) -> list[tuple[str, list[float], list[float]]]:
        """Give the series of a query, each with its legend, its minutes and its values."""
        text = Expression("", target["expr"]).filled(self.variables)
        found = self.prometheus.history(text, start=self.start, stop=self.stop, step=(self.stop - self.start) / 240)
        return [
            (
                _legend(target, series["metric"]),
                [(float(time) - self.start) / 60 for time, _ in series["values"]],
                [float(value) for _, value in series["values"]],
            )
            for series in found
        ]

    def now(self, target: Mapping[str, Any]) -> list[tuple[str, dict[str, str], float]]:
        """Give what a query returns at the end of the stretch."""
        text = Expression("", target["expr"]).filled(self.variables)
        found = self.prometheus.ask("query", query=text, time=self.stop)["result"]
        return [(_legend(target, it["metric"]), it["metric"], float(it["value"][1])) for it in found]


def draw(board: Mapping[str, Any], view: View, path: Path) -> None:
    """Draw one dashboard."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    with plt.rc_context(
        {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 8}
    ):
        figure = plt.figure(figsize=(24 * UNIT_INCHES, height * UNIT_INCHES * 0.62), facecolor="#111217", dpi=80)
        for panel in board["panels"]:
            box = panel["gridPos"]
            left, bottom = box["x"] / 24, 1 - (box["y"] + box["h"]) / height
            if panel["type"] == "row":
                figure.text(left + 0.006, bottom + 0.3 / height, panel["title"], fontsize=11, weight="bold")
            else:
                _panel(figure, panel, view, (left, bottom, box["w"] / 24, box["h"] / height))
        assert len(figure.axes) == len(panels(board))
        figure.savefig(path, facecolor=figure.get_facecolor())
        plt.close(figure)
    with Image.open(path) as picture:  # a third of the bytes, and nobody sees it
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def _panel(figure: Figure, panel: Mapping[str, Any], view: View, box: tuple[float, float, float, float]) -> None:
    left, bottom, width, height = box
    gap, (inches_x, inches_y) = 0.04, figure.get_size_inches()
    x, y = gap / inches_x, gap / inches_y
    figure.patches.append(
        plt.Rectangle(
            (left + x, bottom + y), width - 2 * x, height - 2 * y, color=PAPER, transform=figure.transFigure, zorder=-1
        )
    )
    figure.text(left + 3 * x, bottom + height - 0.24 / inches_y, panel["title"], fontsize=9, weight="bold")
    margin = {"timeseries": 0.78, "bargauge": 1.0}.get(panel["type"], 0.15)
    room = {"timeseries": 0.75}.get(panel["type"], 0.1)
    axes = figure.add_axes(
        (
            left + margin / inches_x,
            bottom + room / inches_y,
            width - (margin + 0.3) / inches_x,
            height - (room + 0.36) / inches_y,
        ),
        facecolor=PAPER,
    )
    {"timeseries": _timeseries, "stat": _stat, "bargauge": _ranking, "table": _table}[panel["type"]](axes, panel, view)


def _timeseries(axes: Axes, panel: Mapping[str, Any], view: View) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom, fixed = defaults.get("custom", {}), _fixed_colors(panel)
    drawn = [line for target in panel["targets"] for line in view.lines(target)]
    colors = [fixed.get(name, PALETTE[index % len(PALETTE)]) for index, (name, _, _) in enumerate(drawn)]
    if custom.get("stacking", {}).get("mode") == "normal" and drawn:
        minutes = sorted({minute for _, times, _ in drawn for minute in times})
        values = [
            [dict(zip(times, told, strict=True)).get(minute, 0.0) for minute in minutes] for _, times, told in drawn
        ]
        axes.stackplot(minutes, values, colors=colors, alpha=0.6)
    else:
        for (_, times, told), color in zip(drawn, colors, strict=True):
            axes.plot(times, told, color=color, linewidth=1.2)
    steps = defaults["thresholds"]["steps"] if "thresholdsStyle" in custom else []
    for step in steps:
        if step["value"] is not None:
            axes.axhline(step["value"], color=_color(step["color"]), linestyle="--", linewidth=0.8)
    axes.set_xlim(0, (view.stop - view.start) / 60)
    if defaults.get("min") is not None:
        axes.set_ylim(bottom=defaults["min"])
    if defaults.get("max") is not None:
        axes.set_ylim(top=defaults["max"])
    if defaults.get("unit") == "bytes" and drawn:
        largest = max(axes.get_ylim()[1], 1.0)
        scale = 1024 ** int(math.log(largest, 1024))
        axes.yaxis.set_major_locator(
            FixedLocator([scale * tick for tick in MaxNLocator(5).tick_values(0, largest / scale)])
        )
        axes.set_ylim(top=largest * 1.05)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, defaults.get("unit", "none"))))
    axes.xaxis.set_major_locator(MaxNLocator(4 if panel["gridPos"]["w"] < 8 else 6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    axes.grid(color=FAINT, linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)
    handles = [plt.Line2D([], [], color=color, linewidth=2) for color in colors]
    if drawn:
        names = [name for name, _, _ in drawn]
        columns = max(1, min(4, int(9.5 * panel["gridPos"]["w"] / (max(map(len, names)) + 7))))
        axes.legend(
            handles[: 3 * columns],
            names[: 3 * columns],
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.11),
            ncols=columns,
            frameon=False,
            fontsize=7 if len(names) <= 2 * columns else 5.5,
            labelspacing=0.3,
        )
    else:
        _say(axes, "No data")


def _stat(axes: Axes, panel: Mapping[str, Any], view: View) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = view.now(panel["targets"][0])
    axes.axis("off")
    if not found:
        _say(
            axes, defaults["noValue"], size=22, color=_threshold(defaults, 0.0 if defaults["noValue"] == "0" else None)
        )
        return
    name, _, value = found[0]
    text = name if panel["options"]["textMode"] == "name" else written(value, defaults.get("unit", "none"))
    _say(axes, text, size=22, color=_threshold(defaults, value))


def _ranking(axes: Axes, panel: Mapping[str, Any], view: View) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = sorted(view.now(panel["targets"][0]))
    if not found:
        axes.axis("off")
        _say(axes, defaults["noValue"])
        return
    names, values = [name for name, _, _ in found], [value for _, _, value in found]
    axes.barh(names, values, color=[_threshold(defaults, value) for value in values], height=0.6)
    axes.set_xlim(0, defaults.get("max") or max(values) * 1.15)
    axes.set_ylim(len(names) - max(len(names), 4) - 0.6, len(names) - 0.4)
    for index, value in enumerate(values):
        axes.text(value, index, f" {written(value, defaults.get('unit', 'none'))}", va="center")
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)


def _table(axes: Axes, panel: Mapping[str, Any], view: View) -> None:
    options = panel["transformations"][1]["options"]
    rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    labels = [field for field in options["indexByName"] if not field.startswith("Value")]
    for target in panel["targets"]:
        field = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
        for _, metric, value in view.now(target):
            key = tuple((label, metric.get(label, "")) for label in labels)
            rows.setdefault(key, dict(key))[field] = f"{value:g}" if value < 100 else f"{value:.0f}"
    axes.axis("off")
    fields = sorted(options["indexByName"], key=options["indexByName"].get)
    if not rows:
        _say(axes, "none")
        return
    cells = [[row.get(field, "") for field in fields] for row in rows.values()]
    table = axes.table(
        cells, colLabels=[options["renameByName"][field] for field in fields], loc="upper left", cellLoc="left"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7.5)
    table.auto_set_column_width(range(len(fields)))
    for (row, _), cell in table.get_celld().items():
        cell.set(facecolor=PAPER, edgecolor=FAINT, height=0.11)
        cell.get_text().set(color=NAMED["blue"] if row == 0 else INK)


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), target.get("legendFormat", ""))


def _fixed_colors(panel: Mapping[str, Any]) -> dict[str, str]:
    return {
        override["matcher"]["options"]: _color(override["properties"][0]["value"]["fixedColor"])
        for override in panel["fieldConfig"]["overrides"]
    }


def _color(name: str) -> str:
    return NAMED.get(name, name)


def _threshold(defaults: Mapping[str, Any], value: float | None) -> str:
    steps = defaults["thresholds"]["steps"]
    reached = [step for step in steps if step["value"] is None or (value is not None and value >= step["value"])]
    return _color(reached[-1]["color"]) if value is not None else INK


def _say(axes: Axes, text: str, *, size: int = 11, color: str = INK) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=size, color=color, transform=axes.transAxes)


def written(value: float, unit: str) -> str:
    """Write a value as its unit has it."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit in SCALES:
        name, base = SCALES[unit]
        for prefix in ("", "k", "M", "G", "T"):
            if abs(value) < base:
                return f"{value:.3g} {prefix}{name}".rstrip()
            value /= base
    text = f"{value:.0f}" if value == int(value) else f"{value:.3g}"
    return f"{text}{SUFFIXES.get(unit, '')}"
