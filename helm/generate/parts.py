"""Panels as our dashboards want them: a title, a sentence on what it shows, a unit, a legend, thresholds.

Grafana's own typed builders make the JSON, so what is written is what Grafana's schema has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "#EAB839", "red", "blue"
Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first value is None."""
Query = tuple[str, str]
"""An expression and its legend."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is drawn over all panels when an expression has a value: a line in time, with a text.

    Parameters
    ----------
    name
        What it is called where it is switched on and off.
    expression
        Has series only at the moments that are meant.
    text
        HTML, in which ``{{label}}`` stands for a series' label; empty: its name.
    """

    name: str
    expression: str
    text: str = ""


class _MarkQuery(model.AnnotationQuery):
    """An annotation as Prometheus' data source reads it: the builders' type lacks its texts."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(
            name=mark.name, datasource=DATASOURCE, enable=True, hide=False, icon_color=RED, expr=mark.expression
        )
        self.text = mark.text

    def to_json(self) -> dict[str, object]:
        texts = {"titleFormat": self.name, "textFormat": self.text} if self.text else {}
        return {**super().to_json(), **texts}


Panel = Builder[model.Panel]
Variable = Builder[model.VariableModel]

_CALM: Steps = ((None, GREEN),)


def steps(values: Steps) -> dashboard.ThresholdsConfig:
    """Write thresholds."""
    found = [model.Threshold(value=value, color=color) for value, color in values]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[prometheus.Dataquery]:
    found = []
    for letter, (expression, legend) in zip("ABCDEFGH", queries, strict=False):
        query = prometheus.Dataquery().expr(expression).ref_id(letter).datasource(DATASOURCE)
        query = query.instant() if instant else query.range()
        found.append(query.legend_format(legend) if legend else query)
    return found


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 8,
    stacked: bool = False,
    bars: bool = False,
    low: float | None = 0,
    high: float | None = None,
    thresholds: Steps | None = None,
    colors: dict[str, str] | None = None,
) -> Panel:
    """Draw series over time; with thresholds, the levels are drawn, too."""
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True)
    tooltip = common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(8)
        .unit(unit)
        .legend(legend.placement(options.LegendPlacement.BOTTOM))
        .tooltip(tooltip)
        .line_width(1)
        .fill_opacity(30 if stacked else 10)
        .show_points(options.VisibilityMode.AUTO)
        .thresholds(steps(thresholds or _CALM))
        .targets([*_targets(queries)])
    )
    if bars:
        panel = panel.draw_style(options.GraphDrawStyle.BARS).fill_opacity(70)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if thresholds:
        panel = panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        )
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    for name, color in (colors or {}).items():
        fixed = model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})
        panel = panel.override_by_name(name, [fixed])
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "none",
    width: int = 4,
    thresholds: Steps = ((None, BLUE),),
    absent: str = "0",
    name: bool = False,
) -> Panel:
    """Show one value, or, with ``name``, the legends of the series that there are."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(4)
        .unit(unit)
        .no_value(absent)
        .thresholds(steps(thresholds))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.VALUE)
        .text_mode(options.BigValueTextMode.NAME if name else options.BigValueTextMode.AUTO)
        .targets([*_targets([query], instant=True)])
    )


def ranking(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 8,
    high: float | None = None,
    thresholds: Steps = _CALM,
    absent: str = "none",
) -> Panel:
    """Compare one value of several series."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(8)
        .unit(unit)
        .min(0)
        .no_value(absent)
        .thresholds(steps(thresholds))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .targets([*_targets([query], instant=True)])
    )
    return panel if high is None else panel.max(high)


def rows_of(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    columns: dict[str, str],
    link: str = "",
    width: int = 24,
) -> Panel:
    """List series: ``columns`` are the fields to show, in order, with what they are called.

    A query's legend is the name of its value's column, which without one is not shown; the fields of several queries
    are joined by their labels.
    """
    found = [query.format(PromQueryFormat.TABLE) for query in _targets([(it, "") for it, _ in queries], instant=True)]
    values = {f"Value #{letter}": name for letter, (_, name) in zip("ABCDEFGH", queries, strict=False)}
    if len(queries) == 1:
        values = {"Value": queries[0][1]}
    values = {field: name for field, name in values.items() if name}
    shown = [*columns, *values]
    organize = {
        "includeByName": dict.fromkeys(shown, True),
        "indexByName": {field: index for index, field in enumerate(shown)},
        "renameByName": {**columns, **values},
    }
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .span(width)
        .height(8)
        .no_value("none")
        .targets([*found])
        .transformations(
            [
                model.DataTransformerConfig(id_val="merge", options={}),
                model.DataTransformerConfig(id_val="organize", options=organize),
            ]
        )
    )
    return panel.data_links([dashboard.DashboardLink("Open the task").url(link)]) if link else panel


def datasource() -> Variable:
    """Choose which Prometheus."""
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def choice(name: str, label: str, values: str, *, several: bool) -> Variable:
    """Choose among the values that a label has."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": values, "refId": f"{name}-values"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(several)
        .include_all(several)
    )
    return variable.all_value(".*") if several else variable


def page(
    title: str,
    uid: str,
    description: str,
    variables: Sequence[Variable],
    rows: Sequence[tuple[str, Sequence[Panel]]],
    *,
    since: str,
    marks: Sequence[Mark] = (),
) -> model.Dashboard:
    """Put a dashboard together; others are linked with the same time and variables; ``marks`` are drawn over all."""
    others = (
        dashboard.DashboardLink("Collective learning")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags(["collective-learning"])
        .include_vars(True)
        .keep_time(True)
    )
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["collective-learning"])
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .links([others])
        .variables([*variables])
    )
    for name, panels in rows:
        made = made.with_row(dashboard.Row(name))
        for panel in panels:
            made = made.with_panel(panel)
    whole = made.build()
    if marks:
        whole.annotations = model.AnnotationContainer(list_val=[_MarkQuery(mark) for mark in marks])
    for index, placed in enumerate(whole.panels or (), start=1):
        placed.id_val = index
    return whole
