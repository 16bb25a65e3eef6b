"""The options that commands share, named as kubectl's."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

import click
import yaml
from click.shell_completion import CompletionItem
from kubernetes.aio.config import ConfigException

from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.client import Access, Client, connected
from collective_operator.object_names import is_object_name

_F = TypeVar("_F", bound=Callable[..., Any])

_COMPLETION_SECONDS = 3.0


def access_options(command: _F) -> _F:
    """Add --kubeconfig, --context and --namespace; the command takes them as `access`."""

    @click.option(
        "--kubeconfig",
        type=click.Path(dir_okay=False),
        help="Path of the kubeconfig; else $KUBECONFIG, ~/.kube/config.",
    )
    @click.option("--context", help="The kubeconfig's context to use; else its current one.")
    @click.option("-n", "--namespace", callback=_name, help="Of the task; else the context's.")
    @wraps(command)
    def with_access(
        *arguments: Any, kubeconfig: str | None, context: str | None, namespace: str | None, **options: Any
    ) -> Any:
        if os.environ.get("NO_COLOR"):
            click.get_current_context().color = False
        access = Access(kubeconfig=kubeconfig, context=context, namespace=namespace)
        return command(*arguments, access=access, **options)

    return with_access  # type: ignore[return-value]  # click's decorators leave what they decorate callable alike


def format_option(*names: str) -> Callable[[_F], _F]:
    """Add -o, of these formats; the first is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(names), default=names[0], show_default=True, help="How to print it."
    )


def task_argument(command: _F) -> _F:
    """Add TASK, which a shell completes from what the cluster has."""
    return click.argument("task", callback=_name, shell_complete=_complete_task)(command)


def _name(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is nobody's name: in a request's path it would be something else."""
    if value is None or (value == "" and parameter.name == "namespace"):  # as with kubectl, the context's
        return value
    if not is_object_name(value):
        raise click.UsageError(
            f"{value!r} is no name of a {parameter.name}: small letters, digits, - and . are allowed"
        )
    return value


def structured(document: Any, output: str) -> str:
    """Write a document for programs."""
    if output == "json":
        return json.dumps(document, indent=2, allow_nan=False)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def _complete_task(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Name the tasks; nobody waits long for that, or is told what went wrong."""
    given = context.params
    access = Access(kubeconfig=given.get("kubeconfig"), context=given.get("context"), namespace=given.get("namespace"))

    async def named(client: Client) -> list[CompletionItem]:
        return [
            CompletionItem(task["metadata"]["name"], help=(task.get("status") or {}).get("phase", "Pending"))
            for task in await client.tasks()
            if task["metadata"]["name"].startswith(incomplete)
        ]

    with suppress(ClusterError, ConfigException, TimeoutError):
        return asyncio.run(asyncio.wait_for(connected(access, named), _COMPLETION_SECONDS))
    return []
