"""`collective watch`: a task of a cluster, in the table that `collective run` shows of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.client import INTERNAL_SERVER_ERROR, TOO_MANY_REQUESTS
from typing import Any, Literal

import click

from collective_operator.cluster.protocol import ClusterError, Manifest, TaskEvent
from collective_operator.commands.client import Access, Client, in_cluster_do
from collective_operator.commands.ended import result_document
from collective_operator.commands.options import access_options, task_argument
from collective_operator.commands.reading import Results, is_serving, results_port, served_by_coordinator
from collective_operator.commands.render import harmless
from collective_operator.desired import names
from collective_operator.run.json_view import JsonView
from collective_operator.run.rounds import Rounds
from collective_operator.run.view import Ended, View
from collective_operator.run.views import view_of
from collective_operator.run.workdir import ROUNDS

_FORBIDDEN = (401, 403)
_PATIENCE_SECONDS = 300.0
"""A cluster that was there may be away so long: an API server that starts anew, a lid that was closed."""
_LAST_LOOKS, _LAST_EVERY_SECONDS = 5, 1.0
"""How often, and how far apart at most, it is looked for the Event of the end: Events come after the status that they
speak of, and one that cannot be published is lost."""
_FIRST_BYTES = 256 * 1024
"""Of the end of a file that may be long: the last round is in it."""


@click.command()
@task_argument
@access_options
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "plain", "json"]),
    help="A live table, lines, or one JSON object a line; by default a table where stdout is a terminal, else lines.",
)
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
def watch(task: str, access: Access, output: str | None, every: float) -> int:
    """Show TASK while it runs: learners, rounds, votes, scores.

    Ends when the task does. Exit status: 0 Complete, 1 Failed, 130 interrupted.
    """
    view = view_of(output)

    async def work(client: Client) -> int:
        return await Watching(client, task, view).until_it_ends(every)

    try:
        return in_cluster_do(access, work)
    finally:
        view.close()


class Watching:
    """One task, looked at again and again."""

    def __init__(self, client: Client, name: str, view: View, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._name = name
        self._view = view
        # JSON is for programs, and escapes by itself.
        self._shown: Callable[[Any], Any] = (lambda told: told) if isinstance(view, JsonView) else harmless
        self._clock = clock
        self._rounds: Rounds | None = None
        self._events: dict[str, int] | None = None
        """How often each Event had happened at the last look, by uid; None before the first."""
        self._told: dict[str, str] = {}
        """When each reason was told last."""
        self._kept_out = False
        self._answered = self._clock()
        self._away = False

    async def until_it_ends(self, every: float) -> int:
        """Show the task until it has ended, and return the exit status that tells how."""
        begun = await self._client.task(self._name)
        self._begin(begun)
        task: Manifest | None = begun
        while True:
            try:
                task = task or await self._client.task(self._name)
                if (code := await self._show(task, every)) is not None:
                    return code
                self._answered, self._away = self._clock(), False
            except ClusterError as error:
                self._wait_for_it(error)
            task = None
            await asyncio.sleep(every)

    async def _show(self, task: Manifest, every: float) -> int | None:
        begins, result = self._events is None, result_document(task)
        for record in await self._new_rounds(task):
            self._view.round(self._shown(record))
        events = await self._new_events(task)
        if result is not None and not begins:
            events += await self._last_events(task, result["reason"], every)
        for event in events:
            self._view.event(replace(event, reason=self._shown(event.reason), message=self._shown(event.message)))
        self._view.status(self._shown(task.get("status") or {}))
        if result is None:
            return None
        self._view.end(Ended(result=self._shown(result)))
        return 0 if result["phase"] == "Complete" else 1

    def _wait_for_it(self, error: ClusterError) -> None:
        """Bear that nobody answers for a while; an answer, such as that the task is gone, is one."""
        silent = error.status in (0, TOO_MANY_REQUESTS) or error.status >= INTERNAL_SERVER_ERROR
        if not silent or self._clock() - self._answered > _PATIENCE_SECONDS:
            raise error
        if not self._away:
            self._view.note(f"the cluster does not answer, and is asked again: {error.message}")
        self._away = True

    def _begin(self, task: Manifest) -> None:
        status, learners = task.get("status") or {}, task["spec"]["learners"]
        self._view.begin(
            name=f"{task['metadata']['namespace']}/{self._name}",
            workdir=None,
            rounds=task["spec"]["rounds"],
            learners=len(learners.get("sites") or ()) or learners.get("count", 0),
            decided=status.get("round", {}).get("current", 0),
        )

    async def _new_rounds(self, task: Manifest) -> list[dict[str, Any]]:
        """Read what was decided since the last look; of what was decided before the first one, the last round."""
        pod = await self._client.child("Pod", names.coordinator(self._name))
        if self._kept_out or pod is None or not is_serving(pod) or results_port(pod) is None:
            return []
        try:
            async with served_by_coordinator(self._client, pod) as results:
                if self._rounds is None:
                    begun = Rounds(offset=max(0, (await results.sizes()).get(ROUNDS, 0) - _FIRST_BYTES))
                    found = (await new_rounds(begun, results))[-1:]
                    self._rounds = begun
                    return found
                return await new_rounds(self._rounds, results)
        except ClusterError as error:
            # A coordinator may leave at any moment. One that nobody lets us reach stays out of reach.
            if error.status in _FORBIDDEN:
                self._kept_out = True
                self._view.note(f"rounds are not shown, only the status: {error.message}")
            return []

    async def _new_events(self, task: Manifest) -> list[TaskEvent]:
        events = await self._client.events(task)
        before, self._events = self._events, {}
        found = []
        for event in events:
            uid, count = event["metadata"]["uid"], event.get("count") or 1
            self._events[uid] = count
            self._told[event.get("reason", "")] = event.get("lastTimestamp") or ""
            if before is not None and count > before.get(uid, 0):
                kind: Literal["Normal", "Warning"] = "Warning" if event.get("type") == "Warning" else "Normal"
                found.append(TaskEvent(type=kind, reason=event.get("reason", ""), message=event.get("message", "")))
        return found

    async def _last_events(self, task: Manifest, reason: str, every: float) -> list[TaskEvent]:
        """Read on until there is an Event of the end: what came before it was published before it."""
        found: list[TaskEvent] = []
        ended = task["status"].get("completionTime", "")
        with suppress(ClusterError):
            for _ in range(_LAST_LOOKS):
                if (told := self._told.get(reason)) is not None and told >= ended:
                    break
                await asyncio.sleep(min(every, _LAST_EVERY_SECONDS))
                found += await self._new_events(task)
        return found


async def new_rounds(rounds: Rounds, results: Results) -> list[dict[str, Any]]:
    """Read the rounds beyond those that were read; a file that has become shorter is read anew the next time."""
    content = await results.beyond(ROUNDS, rounds.offset)
    if content is None:
        rounds.restart()
        return []
    return list(rounds.of(content.splitlines(keepends=True)))
