"""kopf's part: it watches, and wakes workers.  Nothing else.

Only stateless event handlers are used.  kopf's other kinds keep their state in annotations and finalizers of the
object: that would be writes for every task, and a task that could not be deleted while no operator runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf

from collective_operator.api import GROUP, PLURAL, VERSION
from collective_operator.cluster.protocol import TaskKey
from collective_operator.desired import names
from collective_operator.settings import Settings, in_cluster

_SERVER_TIMEOUT_SECONDS = 600


def registry_of(*, wake: Callable[[TaskKey], None], stop: Callable[[], Awaitable[None]]) -> kopf.OperatorRegistry:
    """Register the handlers; none is registered anywhere else.

    Parameters
    ----------
    wake
        Called when something happened to a task.
    stop
        Called when the watches have stopped.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        # Told which login to use, kopf does not go by whatever client library happens to be installed.
        login = kopf.login_with_service_account if in_cluster() else kopf.login_with_kubeconfig
        return login(**arguments)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def task_changed(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            wake(TaskKey(namespace, name))

    @kopf.on.event("v1", "pods", labels={names.TASK_LABEL: kopf.PRESENT}, registry=registry)
    async def pod_changed(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        if namespace:
            wake(TaskKey(namespace, labels[names.TASK_LABEL]))

    @kopf.on.cleanup(registry=registry)
    async def stopped(**_: Any) -> None:
        # kopf waits five seconds for any asyncio task that it finds running after its own, and cancels it then.
        await stop()

    return registry


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Set kopf up to only watch: no events of its own, no waiting at the end."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.watching.server_timeout = _SERVER_TIMEOUT_SECONDS
    # The API server filters, so that the pods of the whole cluster do not come here to be thrown away.
    chosen.watching.label_selectors["v1", "pods"] = names.TASK_LABEL
    chosen.networking.request_timeout = 30
    chosen.queueing.exit_timeout = 1
    chosen.process.ultimate_exiting_timeout = 10
    # Named namespaces come with a Role, which cannot grant watching namespaces and CRDs.
    chosen.scanning.disabled = bool(settings.namespaces)
    return chosen
