"""The learner's commands: ``serve``, ``serve-many``, ``probe`` and ``check``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pprint
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from collective_learner.command_line import LOG_LEVELS, SETTINGS
from collective_learner.connection import LearnerCallError
from collective_learner.environment import STATE_DIR
from collective_learner.factory import DefaultMliFactory, FactoryRegistry
from collective_learner.fleet import run_together
from collective_learner.imports import IMPORT_FAILED, ImportFailedError, import_module, import_tasks
from collective_learner.passwords import Discreet
from collective_learner.registered import as_document, as_text, registered
from collective_learner.server import MAX_WEIGHTS_BYTES, GRPCServer
from collective_learner.tls import TlsError, TlsFiles
from collective_learner.tls_options import tls_client_option, tls_options
from collective_learner.wire.memory import keep_freed_parts
from collective_learner.wire.methods import SAFETENSORS, WEIGHTS_FORMATS

_F = TypeVar("_F", bound=Callable[..., Any])

_IMPORTS_S = 120.0
"""How long `probe` waits for a learner that is importing its modules."""


class _BrokenImport(click.ClickException):
    exit_code = IMPORT_FAILED


def _serving(command: _F) -> _F:
    """Add the options that `serve` and `serve-many` share."""
    for option in reversed(
        (
            click.option(
                "--port",
                default=9995,
                show_default=True,
                type=click.IntRange(0, 65535),
                help="Where to serve gRPC; 0 for any free port, which the log names.",
            ),
            click.option(
                "--metrics-port",
                default=9091,
                show_default=True,
                type=click.IntRange(0, 65535),
                help="Where to serve /metrics, /healthz and /readyz; 0 for nowhere.",
            ),
            click.option("--host", default="0.0.0.0", show_default=True, help="The address to listen on."),  # noqa: S104
            click.option(
                "--import",
                "modules",
                multiple=True,
                metavar="MODULE",
                help="Import this module, so that what it registers is offered; repeatable.",
            ),
            click.option(
                "--code",
                metavar="DIR",
                type=click.Path(exists=True, file_okay=False),
                help="Modules are also found in this folder, after all others.",
            ),
            click.option(
                "--grace",
                default=20.0,
                show_default=True,
                type=click.FloatRange(0),
                help="Seconds within which the server has gone after SIGTERM.",
            ),
            click.option(
                "--max-weights-bytes",
                default=MAX_WEIGHTS_BYTES,
                show_default=True,
                type=click.IntRange(1),
                help="Refuse weights larger than this, however large the model is.",
            ),
            click.option(
                "--weights-format",
                default=SAFETENSORS,
                show_default=True,
                type=click.Choice(WEIGHTS_FORMATS),
                help="What weights travel in. numpy-pickle is for orchestrators of the original colearn, and only for "
                "them: it sends pickled lists of arrays, and reads theirs without unpickling.",
            ),
            click.option(
                "--state-dir",
                metavar="DIR",
                envvar=STATE_DIR,
                help="Where to keep what must survive restarts: the ledger of privacy that is spent. A folder for this "
                "learner alone; without one, a learner with differential privacy is refused.",
            ),
            click.option("--log-level", default="info", show_default=True, type=click.Choice(LOG_LEVELS)),
        )
    ):
        command = option(command)
    return command


@click.command(context_settings=SETTINGS)
@_serving
@tls_options
@tls_client_option
def serve(
    port: int,
    metrics_port: int,
    host: str,
    modules: tuple[str, ...],
    code: str | None,
    grace: float,
    max_weights_bytes: int,
    weights_format: str,
    state_dir: str | None,
    log_level: str,
    tls: TlsFiles | None,
    tls_clients: tuple[str, ...],
) -> None:
    """Serve one learner: what a learner's pod runs."""
    _log_to_stderr(log_level)
    # For learners, however they are made; empty for none, which is not the same as nobody having said.
    os.environ[STATE_DIR] = state_dir or ""
    server = GRPCServer(
        DefaultMliFactory(),
        port,
        host,
        metrics_port=metrics_port or None,
        max_weights_bytes=max_weights_bytes,
        grace_s=grace,
        weights_format=weights_format,
        tls=tls,
        tls_clients=tls_clients,
    )

    def prepare() -> None:
        import_tasks(modules, code=code)
        keep_freed_parts()

    try:
        server.run(prepare)
    except ImportFailedError as error:
        logging.getLogger(__name__).debug("the whole traceback", exc_info=error)
        raise _BrokenImport(str(error)) from error
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from error
    except TlsError as error:
        raise click.ClickException(str(error)) from error
    if server.stuck:
        # A training still runs and nothing can stop it; at interpreter exit its framework could hang or crash.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


@click.command("serve-many", context_settings=SETTINGS)
@click.option(
    "-n", "--n-learners", "count", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many."
)
@_serving
@tls_options
@tls_client_option
@click.pass_context
def serve_many(
    context: click.Context,
    /,
    count: int,
    port: int,
    metrics_port: int,
    state_dir: str | None,
    grace: float,
    log_level: str,
    **_: Any,
) -> None:
    """Serve several learners on consecutive ports, each in a process of its own.

    They end together: on SIGTERM or SIGINT, or when one of them ends. Each keeps its state in a folder of its own below
    the state folder.
    """
    _log_to_stderr(log_level)
    ports = range(port, port + count)
    metrics_ports = range(metrics_port, metrics_port + count) if metrics_port else range(0)
    if not port or max(*ports, *metrics_ports, 0) > 65535:
        raise click.UsageError(f"--port {port}, --metrics-port {metrics_port}: {count} consecutive ports are needed")
    if set(ports) & set(metrics_ports):
        raise click.UsageError(
            f"the ports from {port} and the metrics ports from {metrics_port} overlap: {count} of each are needed"
        )
    commands = [
        _command(
            {
                **context.params,
                "port": ports[index],
                "metrics_port": metrics_ports[index] if metrics_ports else 0,
                "state_dir": os.path.join(state_dir, f"learner-{index}") if state_dir else None,
            }
        )
        for index in range(count)
    ]
    raise SystemExit(asyncio.run(run_together(commands, grace_s=grace)))


def _command(given: Mapping[str, Any]) -> list[str]:
    """Write a command line of `serve`, with these values of its options by their parameters' names."""
    command = [sys.executable, "-m", "collective_learner"]
    for option in serve.params:
        value = given[str(option.name)]
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        command += [f"{option.opts[0]}={each}" for each in values]
    return command


@click.command(context_settings=SETTINGS)
@click.option("--port", default=9995, show_default=True, type=click.IntRange(1, 65535))
@click.option("--ip-addr", default="127.0.0.1", show_default=True, help="Where the learner is: an address or a name.")
@click.option("--attempts", default=5, show_default=True, type=click.IntRange(1), help="How often to try.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, and nothing else there.")
@tls_options
def probe(port: int, ip_addr: str, attempts: int, as_json: bool, tls: TlsFiles | None) -> None:
    """Ask a learner which models and data loaders it offers."""
    from collective_learner.client import GRPCLearnerClient  # noqa: PLC0415 - numpy comes with it

    address = f"[{ip_addr}]:{port}" if ":" in ip_addr else f"{ip_addr}:{port}"

    def on_attempt(number: int, failure: str | None) -> None:
        told = f"attempt {number} of {attempts}: {address}" if failure is None else f"  no answer: {failure}"
        click.echo(told, err=as_json)

    client = GRPCLearnerClient(address, address, attempts=attempts, timeout_s=_IMPORTS_S, tls=tls)
    try:
        client.start(on_attempt)
        click.echo(f"connected to {address}", err=as_json)
        offered = client.probe()
    except (LearnerCallError, TlsError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        client.stop()
    click.echo(json.dumps(offered) if as_json else pprint.pformat(offered))


@click.command()
def check(modules: tuple[str, ...], code: str | None, as_json: bool) -> None:
    """Import modules as a learner would, and tell what they register: `collective check`, where it needs a learner.

    Nobody calls it by name; its options are those of that command.
    """
    try:
        import_tasks((), code=code)
        before = {} if not modules else registered(FactoryRegistry)
        for module in modules:
            known = registered(FactoryRegistry)
            import_module(module)
            if registered(FactoryRegistry) == known:
                raise ImportFailedError(f"{module} is imported, and registers neither a data loader nor a model")
    except ImportFailedError as error:
        raise click.ClickException(str(error)) from error
    found = {key: item for key, item in registered(FactoryRegistry).items() if before.get(key) != item}
    click.echo(json.dumps(as_document(found)) if as_json else as_text(found))


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
