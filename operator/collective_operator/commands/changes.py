"""`collective suspend`, `resume`, `abort` and `retry`: what people ask of a task; the operator does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from collective_operator import conditions
from collective_operator.api.annotations import ABORT, RETRY
from collective_operator.cluster.protocol import Manifest
from collective_operator.commands.client import Access, Client, in_cluster_do
from collective_operator.commands.options import access_options, task_argument
from collective_operator.commands.render import phase_of
from collective_operator.desired import names
from collective_operator.reasons import Reason, Type

_ENDED = ("Complete", "Failed")


@click.command()
@task_argument
@access_options
def suspend(task: str, access: Access) -> None:
    """Let TASK stand still: its pods go, its rounds and its volume stay."""
    _set_suspend(task, access, wanted=True)


@click.command()
@task_argument
@access_options
def resume(task: str, access: Access) -> None:
    """Let a suspended TASK go on, with the round that it was in."""
    _set_suspend(task, access, wanted=False)


@click.command()
@task_argument
@access_options
@click.option("-m", "--message", default="", help="Why; it becomes the message of the condition Failed.")
def abort(task: str, access: Access, message: str) -> None:
    """End TASK now: it fails with the reason Aborted. What it has learnt stays on its volume."""

    async def work(client: Client) -> str:
        found = await client.task(task)
        _expect_going(found)
        await client.patch(task, {"metadata": {"annotations": {ABORT: message.strip() or "true"}}})
        return f"{task} is aborted"

    click.echo(in_cluster_do(access, work))


@click.command()
@task_argument
@access_options
def retry(task: str, access: Access) -> None:
    """Try a failed TASK again: it goes on after its last decided round, from its volume."""

    async def work(client: Client) -> str:
        found = await client.task(task)
        status = found.get("status") or {}
        _expect_failed(found, status)
        decided = status.get("round", {}).get("current", 0)
        volume = names.coordinator(task)
        if decided and await client.child("PersistentVolumeClaim", volume) is None:
            raise click.ClickException(
                f"the volume of {task} is gone ({volume}), and its {decided} rounds with it: delete the task, and "
                "create it anew"
            )
        asked = {ABORT: None, RETRY: status["completionTime"]}
        await client.patch(task, {"metadata": {"annotations": asked}})
        return f"{task} is tried again, after round {decided}"

    click.echo(in_cluster_do(access, work))


def _set_suspend(task: str, access: Access, *, wanted: bool) -> None:
    async def work(client: Client) -> str:
        found = await client.task(task)
        done = "suspended" if wanted else "resumed"
        if bool(found["spec"].get("suspend")) is wanted:
            return f"{task} is {done} already" if wanted else f"{task} is not suspended"
        # A failed one may yet be retried, and stands still then until it is resumed.
        if wanted and phase_of(found) == "Complete":
            raise click.ClickException(_has_ended(found))
        await client.patch(task, {"spec": {"suspend": wanted}})
        return f"{task} is {done}"

    click.echo(in_cluster_do(access, work))


def _expect_going(task: Manifest) -> None:
    if phase_of(task) in _ENDED:
        raise click.ClickException(_has_ended(task))


def _expect_failed(task: Manifest, status: Mapping[str, Any]) -> None:
    name, phase = task["metadata"]["name"], phase_of(task)
    if phase != "Failed":
        raise click.ClickException(f"{name} is {phase}: only a failed task can be tried again")
    if conditions.by_type(status).get(Type.FAILED, {}).get("reason") == Reason.INVALID_SPEC:
        raise click.ClickException(f"{name} was refused: mend its spec (kubectl edit), and it is looked at anew")


def _has_ended(task: Manifest) -> str:
    status = task["status"]
    return f"{task['metadata']['name']} has ended already: {status['phase']} ({status['reason']})"
