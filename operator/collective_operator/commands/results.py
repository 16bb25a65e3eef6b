"""`collective results` and `plot`: fetch what a task has learnt, and draw how it went."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from collective_operator.api import API_VERSION, KIND
from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.client import Access, Client, in_cluster_do
from collective_operator.commands.ended import result_document
from collective_operator.commands.options import access_options, task_argument
from collective_operator.commands.picture import draw
from collective_operator.commands.reading import results_of
from collective_operator.run.workdir import PLOT, RESULT, ROUNDS, write_whole

_TASK = "task.yaml"
_PICTURES = (".png", ".svg", ".pdf")

_IMAGE = click.option(
    "--image",
    help="Of the pod that reads the volume of a task whose coordinator has gone; by default the coordinator's.",
)


@click.command()
@task_argument
@access_options
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write to, by default results/TASK; files of the same names are replaced.",
)
@_IMAGE
def results(task: str, access: Access, output: Path | None, image: str | None) -> None:
    """Fetch what TASK has learnt: its model, its rounds as rounds.jsonl and rounds.png, its result and its file.

    Works while it runs, with the model as it is then, and as long as its volume is there. `collective export` and
    `collective predict` take the folder's task.yaml.
    """
    folder = output or Path("results", task)

    async def work(client: Client) -> None:
        found = await client.task(task)
        _make(folder)
        async with results_of(client, found, image=image, note=_note) as there:
            sizes = await there.sizes()
            if not sizes:
                raise ClusterError(status=404, message=f"{task} has no results yet: no round is decided")
            for name in sizes:
                size = await there.fetch(name, folder / name)
                click.echo(f"{folder / name}  {_bytes(size)}")
        for name, text in _documents(found).items():
            write_whole(folder / name, text)
            click.echo(folder / name)
        if ROUNDS in sizes:
            await _draw(folder / ROUNDS, folder / PLOT)

    try:
        in_cluster_do(access, work)
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from error


@click.command()
@task_argument
@access_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The picture, by default TASK.png; its suffix says of which kind (png, svg, pdf).",
)
@_IMAGE
def plot(task: str, access: Access, output: Path | None, image: str | None) -> None:
    """Draw TASK's rounds: how the scores went, and who voted how."""
    picture = output or Path(f"{task}.png")
    if picture.suffix.lower() not in _PICTURES:
        raise click.UsageError(f"{picture}: the name must end with one of {', '.join(_PICTURES)}")

    async def work(client: Client) -> None:
        found = await client.task(task)
        with tempfile.TemporaryDirectory(prefix="collective-") as folder:
            rounds = Path(folder) / ROUNDS
            async with results_of(client, found, image=image, note=_note) as there:
                if ROUNDS not in await there.sizes():
                    raise ClusterError(status=404, message=f"{task} has no rounds yet")
                await there.fetch(ROUNDS, rounds)
            if why := await draw(rounds, picture):
                raise click.ClickException(why.replace(str(rounds), ROUNDS))
        click.echo(picture)

    in_cluster_do(access, work)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{folder}: cannot be used as a folder: {error.strerror}") from error


def _documents(task: Mapping[str, Any]) -> dict[str, str]:
    """Write what the task itself tells."""
    metadata = {field: task["metadata"][field] for field in ("namespace", "name")}
    plain = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": task["spec"]}
    documents = {_TASK: yaml.safe_dump(plain, sort_keys=False)}
    if result := result_document(task):
        documents[RESULT] = json.dumps(result, indent=2, allow_nan=False) + "\n"
    return documents


async def _draw(rounds: Path, picture: Path) -> None:
    """Draw; without a picture the results are none the worse."""
    if why := await draw(rounds, picture):
        _note(f"{picture.name} was not drawn: {why}")
    else:
        click.echo(picture)


def _note(text: str) -> None:
    click.echo(text, err=True)


def _bytes(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"
