"""Names of objects on the command line: in a request's path anything else would be something else."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST = 253


def is_object_name(text: str) -> bool:
    """Tell whether an object of Kubernetes may be called so."""
    return len(text) <= _LONGEST and _NAME.fullmatch(text) is not None


def object_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Check a name, which may be left empty; a callback of click's options.

    Raises
    ------
    click.BadParameter
        No object may be called so.
    """
    _check(context, parameter, [value] if value else ())
    return value


def object_names(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check names; a callback of click's options."""
    _check(context, parameter, value)
    return value


def _check(context: click.Context, parameter: click.Parameter, names: Iterable[str]) -> None:
    for name in names:
        if not is_object_name(name):
            told = f"{name!r} is no name: small letters, digits, - and . are allowed, {_LONGEST} characters at most"
            raise click.BadParameter(told, context, parameter)
