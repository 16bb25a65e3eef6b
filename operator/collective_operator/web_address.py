"""Addresses of web pages on the command line: what people are sent to is a page, and nothing that a browser runs."""

from __future__ import annotations

import re

import click

_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
_LONGEST = 300


def web_address(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check one; a callback of click's options.

    Raises
    ------
    click.BadParameter
        It is neither empty nor an http or https URL without query and fragment.
    """
    if value and (len(value) > _LONGEST or not _ADDRESS.fullmatch(value)):
        told = f"{value!r} is no address of a web page, such as https://grafana.example.com/grafana"
        raise click.BadParameter(told, context, parameter)
    return value
