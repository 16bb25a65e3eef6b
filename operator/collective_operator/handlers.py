"""kopf's part: the operator's life, and the tasks, which it watches and tells of.  Nothing else.

Only stateless event handlers are used.  kopf's other kinds keep their state in annotations and finalizers of the
object: that would be writes for every task, and a task that could not be deleted while no operator runs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import kopf

from collective_operator.api import GROUP, KIND, PLURAL, VERSION
from collective_operator.cluster.following import Tell
from collective_operator.cluster.listing import PAGE
from collective_operator.settings import Settings, in_cluster

_SERVER_TIMEOUT_SECONDS = 600
_NO_FINALIZER = f"{GROUP}/none"
"""None is ever put on a task.  kopf takes one off that no handler asked for: by default its own, which may be that of
another operator built on it."""
_IDLE_SECONDS = 1
"""How long kopf keeps what it has for the events of one task: there are thousands, and each has two or three."""
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


class NoDiffs(kopf.DiffBaseStorage):
    """What kopf compares objects by, for handlers that nobody has here: nothing.

    By default it copies every object that it sees, and reads what an annotation says of how the object was before.
    That annotation may be anybody's: one that could not be read made kopf pass over the object.
    """

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        """Find nothing in an object."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Remember nothing of an object."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Keep nothing."""


def registry_of(
    *,
    tell: Tell,
    began_anew: Callable[[], None],
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> kopf.OperatorRegistry:
    """Register the handlers; none is registered anywhere else.

    Parameters
    ----------
    tell
        Called with a task as a watch saw it, and whether it is gone.
    began_anew
        Called when the watch has begun anew: of tasks that went meanwhile it says nothing.
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

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id=KIND)
    async def changed(event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] is None:
            began_anew()
        tell(KIND, event["object"], gone=event["type"] == "DELETED")

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
    chosen.persistence.diffbase_storage = NoDiffs()
    chosen.persistence.finalizer = _NO_FINALIZER
    chosen.watching.server_timeout = _SERVER_TIMEOUT_SECONDS
    chosen.watching.chunk_size = PAGE
    chosen.queueing.idle_timeout = _IDLE_SECONDS
    chosen.networking.request_timeout = 30
    chosen.networking.error_backoffs = Backoffs()
    chosen.queueing.exit_timeout = 1
    chosen.process.ultimate_exiting_timeout = 10
    # Named namespaces come with a Role, which cannot grant watching namespaces and CRDs.
    chosen.scanning.disabled = bool(settings.namespaces)
    return chosen
