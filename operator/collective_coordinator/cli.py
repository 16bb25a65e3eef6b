"""The coordinator's commands: ``coordinate``, for pods and local processes, and ``demo``, for people."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click

from collective_coordinator.demo import demo
from collective_learner.command_line import LOG_LEVELS, dashes
from collective_learner.tls import TlsFiles
from collective_learner.tls_options import tls_options

__all__ = ["coordinate", "demo"]


def log_to_stderr(level: str) -> None:
    """Log plain lines."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, force=True, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


@click.command(context_settings={"token_normalize_func": dashes})
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="Configuration, JSON.")
@click.option("--state-dir", required=True, type=click.Path(path_type=Path), help="Where checkpoints and results go.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="HTTP; 0: any free one.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to serve HTTP on.")  # noqa: S104 - a pod
@click.option(
    "--results-port",
    type=click.IntRange(0, 65535),
    help="Where the rounds and the model can be fetched from, on the loopback address alone; by default nowhere.",
)
@click.option(
    "--domain",
    default="",
    help="Where this host's resolver looks for names first: learners in it are dialled without it.",
)
@click.option(
    "--termination-log",
    default="/dev/termination-log",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the verdict is written, as JSON of at most 4096 bytes.",
)
@click.option("--log-level", default="info", show_default=True, type=click.Choice(LOG_LEVELS))
@tls_options
def coordinate(
    config_path: Path,
    state_dir: Path,
    port: int,
    host: str,
    results_port: int | None,
    domain: str,
    termination_log: Path,
    log_level: str,
    tls: TlsFiles | None,
) -> None:
    """Drive the rounds of one task, until its verdict."""
    # Imported here: `collective demo --help` need not load a web server.
    from collective_coordinator.program import run_program  # noqa: PLC0415
    from collective_learner.wire.memory import keep_freed_parts  # noqa: PLC0415

    log_to_stderr(log_level)
    keep_freed_parts(in_one_place=True)
    status = asyncio.run(
        run_program(
            config_path=config_path,
            state_dir=state_dir,
            host=host,
            port=port,
            results_port=results_port,
            last_word=termination_log,
            tls=tls,
            domain=domain,
        )
    )
    raise SystemExit(status)
