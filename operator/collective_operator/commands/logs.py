"""`collective logs`: what a task's coordinator, or one of its learners, prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from collective_operator.cluster.objects import collection
from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.client import Access, Client, in_cluster_do
from collective_operator.commands.options import access_options, task_argument
from collective_operator.commands.render import phase_of
from collective_operator.desired import names

_CHUNK = 1 << 16


@click.command()
@task_argument
@click.argument("learner", required=False)
@access_options
@click.option("-f", "--follow", is_flag=True, help="Go on printing until it ends.")
@click.option("--tail", type=click.IntRange(0), help="Only so many of its last lines.")
@click.option("-p", "--previous", is_flag=True, help="Of the container before this one, which has crashed.")
def logs(task: str, learner: str | None, access: Access, follow: bool, tail: int | None, previous: bool) -> None:
    """Print the log of TASK's coordinator, or of LEARNER: its number, `learner-2`, or the name of its site."""

    async def work(client: Client) -> None:
        found = await client.task(task)
        pod, container = pod_of(found, learner)
        query = [("container", container)]
        query += [("follow", "true")] if follow else []
        query += [("previous", "true")] if previous else []
        query += [("tailLines", str(tail))] if tail is not None else []
        path = f"{collection('Pod', client.namespace)}/{pod}/log"
        try:
            async with client.api.stream(path, resource="pods/log", query=query) as lines:
                while chunk := await lines.read(_CHUNK):
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
        except ClusterError as error:
            if error.status == 404:
                raise click.ClickException(_absent(found, pod)) from error
            raise

    in_cluster_do(access, work)


def pod_of(task: Mapping[str, Any], learner: str | None) -> tuple[str, str]:
    """Name the pod and the container that a person means.

    Raises
    ------
    click.UsageError
        The task has no such learner.
    """
    name, learners = task["metadata"]["name"], task["spec"]["learners"]
    if learner in (None, names.COORDINATOR):
        return names.coordinator(name), names.COORDINATOR
    sites = [site.get("name") for site in learners.get("sites") or ()]
    count = len(sites) or learners.get("count", 0)
    number = str(learner).removeprefix(f"{name}-").removeprefix(f"{names.LEARNER}-")
    if learner in sites:
        index = sites.index(learner)
    elif number.isdecimal() and int(number) < count:
        index = int(number)
    else:
        known = f", or {', '.join(map(str, sites))}" if sites else ""
        raise click.UsageError(f"{name} has no learner {learner}: there are learner-0 to learner-{count - 1}{known}")
    return names.learner(name, index), names.LEARNER


def _absent(task: Mapping[str, Any], pod: str) -> str:
    phase = phase_of(task)
    ended = phase in ("Complete", "Failed")
    cure = "; a task with policy.cleanPods: None keeps its pods" if ended else ""
    return f"there is no pod {pod}: the task is {phase}{cure}"
