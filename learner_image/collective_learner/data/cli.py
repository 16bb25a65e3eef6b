"""``collective data``: shards of a data set for several learners, and small look-alikes for first tries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from collective_learner.command_line import SETTINGS
from collective_learner.data.lookalikes import LOOK_ALIKES, make
from collective_learner.data.splitting import split


class _Refused(click.ClickException):
    exit_code = 2


@click.group(context_settings=SETTINGS)
def data() -> None:
    """Prepare data for learners: small look-alikes, and shards of real data sets. Nothing is downloaded."""


@data.command("make")
@click.argument("name", metavar=f"[{'|'.join(LOOK_ALIKES)}]")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--examples", type=click.IntRange(30), help="How many examples; each data set has a default.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed makes the same data.")
def make_command(name: str, folder: Path, examples: int | None, seed: int) -> None:
    """Write a small made-up data set in the files of a published one into DIR.

    For tests and first tries: it shows that a task works, and a score on it means nothing else.
    """
    try:
        card = make(name, folder, examples=examples, seed=seed)
    except ValueError as error:
        raise _Refused(str(error)) from error
    click.echo(f"{folder}: {card['examples']} examples, for the data loaders {', '.join(card['dataLoaders'])}")


@data.command("split")
@click.argument("source", metavar="SOURCE")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-n", "--learners", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many shards.")
@click.option(
    "--skew",
    type=float,
    metavar="ALPHA",
    help="Divide each class by shares from a Dirichlet distribution: 100 is nearly even, 0.1 gives a shard few classes."
    " By default shards are alike.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed deals the same way.")
@click.option("--json", "as_json", is_flag=True, help="The card on standard output, and nothing else there.")
def split_command(source: str, folder: Path, learners: int, skew: float | None, seed: int, as_json: bool) -> None:
    """Deal a data set out to learners: DIR/0, DIR/1, ..., disjoint and complete.

    SOURCE is a folder, a file or a URL with MNIST's, CIFAR-10's or a card fraud data set's own files, with arrays x and
    y (.npz), or with a folder of images for each class. A task reads the shards with `location: DIR/{index}`.
    """
    try:
        card = split(source, folder, learners=learners, skew=skew, seed=seed)
    except ValueError as error:
        raise _Refused(str(error)) from error
    click.echo(json.dumps(card) if as_json else _told(folder, card))


def _told(folder: Path, card: dict[str, Any]) -> str:
    lines = [f"{folder}: {card['examples']} examples of {card['name']} for {len(card['shards'])} learners"]
    for shard in card["shards"]:
        labels = ", ".join(f"{label}: {count}" for label, count in shard["labels"].items())
        lines.append(f"  {shard['folder']}: {shard['examples']} ({labels})")
    return "\n".join(lines)
