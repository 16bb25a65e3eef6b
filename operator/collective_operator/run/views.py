"""Which view a person or a program gets, by what was asked for and where the output goes."""

from __future__ import annotations

import os
import sys

from collective_operator.run.json_view import JsonView
from collective_operator.run.live_view import LiveView
from collective_operator.run.plain_view import PlainView
from collective_operator.run.view import View


def view_of(output: str | None) -> View:
    """Choose a view: `table`, `plain` or `json`; by default a table where stdout is a terminal, else plain lines."""
    if output == "json":
        return JsonView()
    if output == "plain" or (output is None and (not sys.stdout.isatty() or os.environ.get("TERM") == "dumb")):
        return PlainView()
    return LiveView()
