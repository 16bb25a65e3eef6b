"""`collective list`: the tasks of a namespace, or of all."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from collective_operator.api import API_VERSION, KIND
from collective_operator.cluster.protocol import Manifest
from collective_operator.commands.client import Access, Client, in_cluster_do
from collective_operator.commands.options import access_options, format_option, structured
from collective_operator.commands.render import task_list


@click.command("list")
@access_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", default="", help="Only tasks with these labels.")
@format_option("table", "json", "yaml")
def list_tasks(access: Access, all_namespaces: bool, selector: str, output: str) -> None:
    """List tasks: phase, rounds, learners that are ready, score."""

    async def work(client: Client) -> tuple[str, list[Manifest]]:
        return client.namespace, await client.tasks(everywhere=all_namespaces, selector=selector)

    namespace, tasks = in_cluster_do(access, work)
    if output != "table":
        items = [{"apiVersion": API_VERSION, "kind": KIND, **task} for task in tasks]
        click.echo(structured({"apiVersion": "v1", "kind": "List", "items": items}, output))
    elif tasks:
        click.echo("\n".join(task_list(tasks, now=datetime.now(UTC), namespaces=all_namespaces)))
    else:
        click.echo("no tasks" if all_namespaces else f"no tasks in namespace {namespace}", err=True)
