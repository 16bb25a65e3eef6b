"""`collective status`: where a task is, what it waits for, and what happened to it."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from collective_operator.cluster.protocol import Manifest
from collective_operator.commands.client import Access, Client, in_cluster_do
from collective_operator.commands.options import access_options, format_option, structured, task_argument
from collective_operator.commands.render import task_status


@click.command()
@task_argument
@access_options
@format_option("table", "json", "yaml")
def status(task: str, access: Access, output: str) -> None:
    """Tell where TASK is: rounds, learners, conditions, its last events, and what it waits for.

    With -o json or yaml it is the task as the cluster has it.
    """

    async def work(client: Client) -> tuple[Manifest, list[Manifest]]:
        found = await client.task(task)
        return found, await client.events(found) if output == "table" else []

    found, events = in_cluster_do(access, work)
    if output == "table":
        click.echo("\n".join(task_status(found, events, now=datetime.now(UTC))))
    else:
        click.echo(structured(found, output))
