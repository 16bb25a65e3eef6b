"""``collective demo``: rounds on learners that already run, printed as tables.

It asks nothing of the learners but colearn's nine RPCs, so it drives an original colearn server as well as ours. The
rounds are those of every other task; only their state lies in a directory that is thrown away.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from collective_coordinator.board import Board
from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.config import Component, Config, LearnerSpec, Policy, StrategySpec
from collective_coordinator.dialing import Dialer
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.metrics import Metrics
from collective_coordinator.pulse import Timing
from collective_coordinator.stop import Stop
from collective_coordinator.task import drive
from collective_learner.command_line import dashes
from collective_learner.tls import TlsError, TlsFiles
from collective_learner.tls_options import tls_options

FAILED, INTERRUPTED = 1, 130
_WAIT_S = 60.0


@click.command(context_settings={"token_normalize_func": dashes})
@click.option(
    "--port",
    "-p",
    default=9995,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port of the first learner; the others listen on the ports after it.",
)
@click.option("--n-learners", "-n", default=5, show_default=True, type=click.IntRange(1, 256), help="Learners.")
@click.option("--dataloader-tag", "-d", required=True, help="Name of the data loader.")
@click.option("--model-tag", "-m", required=True, help="Name of the model.")
@click.option(
    "--data-locations",
    "-l",
    default=None,
    help="Comma-separated: one for each learner, or one that all share.  [default: 0/n,1/n,...]",
)
@click.option("--n-rounds", "-r", default=15, show_default=True, type=click.IntRange(1, 100_000), help="Rounds.")
@click.option(
    "--vote-threshold",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="Share of the voters that must approve.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the learners run.")
@tls_options
def demo(
    port: int,
    n_learners: int,
    dataloader_tag: str,
    model_tag: str,
    data_locations: str | None,
    n_rounds: int,
    vote_threshold: float,
    host: str,
    tls: TlsFiles | None,
) -> None:
    """Drive voted rounds on learners that already run on consecutive ports."""
    if port + n_learners - 1 > 65535:
        raise click.UsageError(f"--port {port}: {n_learners} consecutive ports go past 65535")
    try:
        dialer = Dialer(tls)
    except TlsError as error:
        raise click.ClickException(str(error)) from error
    config = Config(
        namespace="default",
        name="demo",
        uid="",
        model=Component(name=model_tag),
        data_loader=Component(name=dataloader_tag),
        seed=None,
        stop=Stop(rounds=n_rounds),
        strategy=StrategySpec(threshold=repr(vote_threshold)),
        learners=tuple(
            LearnerSpec(name=f"learner-{index}", address=f"{host}:{port + index}", location=location)
            for index, location in enumerate(locations(data_locations, count=n_learners))
        ),
        policy=Policy(min_learners=n_learners, pre_running_deadline_s=_WAIT_S),
    )
    logging.basicConfig(level="WARNING", stream=sys.stderr, format="%(levelname)s: %(message)s")
    try:
        # A thread may still be writing there when the demo is interrupted.
        with tempfile.TemporaryDirectory(prefix="collective-demo-", ignore_cleanup_errors=True) as directory:
            reason, message = asyncio.run(
                drive(
                    config,
                    state_dir=Path(directory),
                    board=Board(config),
                    metrics=Metrics(),
                    timing=Timing(round_s=config.policy.round_timeout_s),
                    decided=lambda snapshot: click.echo(table(snapshot, rounds=n_rounds)),
                    dialer=dialer,
                )
            )
        if reason != "RoundsCompleted":
            click.echo(f"Complete ({reason}): {message}")
    except TaskFailedError as error:
        click.echo(f"Failed ({error.reason}): {error.message}", err=True)
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        click.echo("Interrupted", err=True)
        raise SystemExit(INTERRUPTED) from None


def locations(text: str | None, *, count: int) -> list[str]:
    """Read ``--data-locations``.

    Raises
    ------
    click.UsageError
        There is neither one location nor one for each learner.
    """
    if text is None:
        return [f"{index}/{count}" for index in range(count)]
    given = [piece.strip() for piece in text.split(",")]
    if len(given) not in (1, count) or not all(given):
        raise click.UsageError(f"--data-locations {text!r}: give one location, or {count} with commas between")
    return given if len(given) == count else given * count


def table(snapshot: Snapshot, *, rounds: int) -> str:
    """Show one decided round as people of colearn know it: proposer, decision, then one line a learner."""
    record = snapshot.record
    if record is None:
        lines = [f"Start: all learners hold the weights of {snapshot.latest.proposer}"]
        lines += [f"  {name:<12} test score {_score(score)}" for name, score in snapshot.scores.items()]
        return "\n".join([*lines, ""])
    lines = [
        f"Round {record['round']} of {rounds}",
        f"  selected proposer:  {record['proposer']}",
        f"  new model accepted: {'yes' if record['accepted'] else 'no'}",
        f"  {'learner':<12} {'vote':<10} {'test score':>10} {'vote score':>10}",
    ]
    lines += [
        f"  {name:<12} {_vote(name, record):<10} {_score(score):>10} {_score(record['voteScores'][name]):>10}"
        for name, score in record["testScores"].items()
    ]
    lines += [f"  {name:<12} left out: {why}" for name, why in record.get("leftOut", {}).items()]
    budgets: Mapping[str, Mapping[str, float | None]] = record.get("privacy", {})
    lines += [
        f"  privacy budget of {name}: epsilon {_score(budget['consumedEpsilon'])} of "
        f"{_score(budget['targetEpsilon'])}, delta {_score(budget['consumedDelta'])} of {_score(budget['targetDelta'])}"
        for name, budget in budgets.items()
    ]
    return "\n".join([*lines, ""])


def _vote(name: str, record: Mapping[str, Any]) -> str:
    if name not in record["votes"]:
        return "(proposer)"
    return "yes" if record["votes"][name] else "no"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
