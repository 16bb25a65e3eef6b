"""Every PromQL expression that the chart brings, as Grafana and Prometheus would ask it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from .tools import ALERTS

_WORD = re.compile(r"\b(collective_\w+|process_\w+|DCGM_\w+|ALERTS)\b")


@dataclass(frozen=True)
class Expression:
    """One query of a dashboard."""

    place: str
    text: str
    legend: str = ""

    def filled(self, variables: Mapping[str, str]) -> str:
        """Put values in place of variables, as Grafana does."""
        text = self.text
        for name, value in sorted(variables.items(), key=lambda item: -len(item[0])):
            text = text.replace(f"${name}", value)
        return text


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the panels of a dashboard, without the headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def of_dashboard(board: Mapping[str, Any]) -> Iterator[Expression]:
    """Yield what its panels, variables and marks ask for."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield Expression(f"{board['title']}: {panel['title']}", target["expr"], target.get("legendFormat", ""))
    for mark in board["annotations"].get("list", []):
        yield Expression(f"{board['title']}: {mark['name']}", mark["expr"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector = variable["query"]["query"].removeprefix("label_values(").rpartition(",")[0]
            yield Expression(f"{board['title']}: variable {variable['name']}", selector)


def of_alerts() -> list[str]:
    """List the expressions of the alerts."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    """Name the metrics that an expression asks for."""
    return set(_WORD.findall(expression))
