"""The options by which every command that serves or calls learners is told of keys and certificates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from collective_learner.environment import TLS_CA, TLS_CERT, TLS_CLIENT, TLS_KEY
from collective_learner.tls import TlsFiles

_FILE = click.Path(dir_okay=False)

Command = Callable[..., Any]


def tls_options(command: Command) -> Command:
    """Add ``--tls-cert``, ``--tls-key`` and ``--tls-ca``; the command gets them as ``tls``, all three or None."""

    @functools.wraps(command)
    def with_tls(*, tls_cert: str | None, tls_key: str | None, tls_ca: str | None, **others: Any) -> Any:
        return command(tls=together(tls_cert, tls_key, tls_ca), **others)

    for option in reversed(
        (
            click.option(
                "--tls-cert",
                type=_FILE,
                metavar="FILE",
                envvar=TLS_CERT,
                show_envvar=True,
                help="This side's certificate, PEM. With the other two: TLS, both ways. Read anew when it changes.",
            ),
            click.option(
                "--tls-key", type=_FILE, metavar="FILE", envvar=TLS_KEY, show_envvar=True, help="Its key, PEM."
            ),
            click.option(
                "--tls-ca",
                type=_FILE,
                metavar="FILE",
                envvar=TLS_CA,
                show_envvar=True,
                help="Whose signature the other side's certificate must have, PEM.",
            ),
        )
    ):
        with_tls = option(with_tls)
    return with_tls


def tls_client_option(command: Command) -> Command:
    """Add ``--tls-client`` to a command that serves; it gets them as ``tls_clients``."""

    @functools.wraps(command)
    def with_clients(*, tls: TlsFiles | None, tls_clients: tuple[str, ...], **others: Any) -> Any:
        if tls_clients and tls is None:
            raise click.UsageError(f"--tls-client {tls_clients[0]} needs --tls-cert, --tls-key and --tls-ca")
        return command(tls=tls, tls_clients=tls_clients, **others)

    return click.option(
        "--tls-client",
        "tls_clients",
        multiple=True,
        metavar="NAME",
        envvar=TLS_CLIENT,
        show_envvar=True,
        help="Who may call: a DNS name that the caller's certificate is for; repeatable. Whoever has one that --tls-ca "
        "signed, when none is named.",
    )(with_clients)


def together(certificate: str | None, key: str | None, authority: str | None) -> TlsFiles | None:
    """Take the three, or none of them.

    Raises
    ------
    click.UsageError
        Some are missing.
    """
    given = {"--tls-cert": certificate, "--tls-key": key, "--tls-ca": authority}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if certificate and key and authority:
        return TlsFiles(certificate=certificate, key=key, authority=authority)
    raise click.UsageError(f"--tls-cert, --tls-key and --tls-ca belong together: {' and '.join(missing)} missing")
