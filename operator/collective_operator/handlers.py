"""kopf's part: it watches, has what it sees remembered, and wakes workers.  Nothing else.

Only stateless event handlers are used.  kopf's other kinds keep their state in annotations and finalizers of the
object: that would be writes for every task, and a task that could not be deleted while no operator runs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import kopf

from collective_operator.api import GROUP, KIND, PLURAL, VERSION
from collective_operator.cluster.kubernetes import PAGE
from collective_operator.cluster.objects import PLURALS, api_version
from collective_operator.cluster.protocol import TaskKey
from collective_operator.desired import names
from collective_operator.kopf_storage import NoDiffs, NoProgress
from collective_operator.settings import Settings, in_cluster
from collective_operator.urgency import is_urgent

_SERVER_TIMEOUT_SECONDS = 600
_IDLE_SECONDS = 1
"""How long kopf keeps what it has for the events of one object: there are thousands, and each has two or three."""
_WATCHER = "watcher for "
"""How kopf names the tasks that watch."""
_LOGIN_SECONDS = 1
"""Between two logins: an API server that starts refuses good tokens for a moment."""


class Backoffs:
    """The pauses before a request of a watch is sent again: for ever, as there is nothing else that could be done.

    After a few tries kopf would give up, and with it the operator: an API server may be away for longer.
    """

    def __iter__(self) -> Iterator[float]:
        """Begin anew."""
        return itertools.chain((0.5, 1, 2, 3), itertools.repeat(5))


Tell = Callable[[str, Mapping[str, Any], bool], TaskKey | None]


class Wake(Protocol):
    """Has a task looked at."""

    def __call__(self, key: TaskKey, *, urgent: bool) -> None:
        """Do it soon; it is urgent where there may be something to do, and not only to tell."""


def registry_of(
    *,
    kinds: Sequence[str],
    tell: Tell,
    wake: Wake,
    began_anew: Callable[[], None],
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> kopf.OperatorRegistry:
    """Register the handlers; none is registered anywhere else.

    Parameters
    ----------
    kinds
        Of the children that are watched.
    tell
        Called with an object of a kind as a watch saw it, and whether it is gone; names the task that it is of.
    wake
        Called when something happened to a task.
    began_anew
        Called when a watch has begun anew: of objects that went meanwhile it says nothing.
    start, stop
        Called before there are watches, and when they have stopped.
    """
    registry = kopf.OperatorRegistry()

    logins = itertools.count()

    @kopf.on.login(registry=registry)
    async def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        # Told which login to use, kopf does not go by whatever client library happens to be installed.
        login = kopf.login_with_service_account if in_cluster() else kopf.login_with_kubeconfig
        found, number = login(**arguments), next(logins)
        if number:
            await asyncio.sleep(_LOGIN_SECONDS)
        # kopf ends when it is given the same again after a refusal, and a refusal may pass: no two are the same.
        return found and replace(found, priority=number)

    @kopf.on.startup(registry=registry)
    async def starting(**_: Any) -> None:
        await start()

    def watch(kind: str, *resource: str) -> None:
        @kopf.on.event(*resource, registry=registry, id=kind)
        async def changed(event: Mapping[str, Any], **_: Any) -> None:
            if event["type"] is None:
                began_anew()
            key = tell(kind, event["object"], event["type"] == "DELETED")
            if key is not None:
                wake(key, urgent=is_urgent(kind, event["object"], gone=event["type"] == "DELETED"))

    watch(KIND, GROUP, VERSION, PLURAL)
    for kind in kinds:
        watch(kind, *_resource(kind))

    @kopf.on.cleanup(registry=registry)
    async def stopped(**_: Any) -> None:
        # kopf waits five seconds for any asyncio task that it finds running after its own, and cancels it then.
        await stop()
        # Where one watch has failed for good, kopf forgets the others, waits for them in vain, and kills itself.
        for task in asyncio.all_tasks():
            if task.get_name().startswith(_WATCHER):
                task.cancel()

    return registry


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Set kopf up to only watch: no events of its own, no waiting at the end."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.persistence.diffbase_storage, chosen.persistence.progress_storage = NoDiffs(), NoProgress()
    chosen.watching.server_timeout = _SERVER_TIMEOUT_SECONDS
    chosen.watching.chunk_size = PAGE
    chosen.queueing.idle_timeout = _IDLE_SECONDS
    # The API server filters, so that what the whole cluster has does not come here to be thrown away.
    for kind in settings.child_kinds:
        chosen.watching.label_selectors[_resource(kind)] = names.TASK_LABEL
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = Backoffs()
    chosen.queueing.exit_timeout = 1
    chosen.process.ultimate_exiting_timeout = 10
    # Named namespaces come with a Role, which cannot grant watching namespaces and CRDs.
    chosen.scanning.disabled = bool(settings.namespaces)
    return chosen


def _resource(kind: str) -> tuple[str, str]:
    """Name a kind as kopf wants it."""
    return api_version(kind), PLURALS[kind]
