"""The operator as a program: what it is made of, and its life from the first listing to the last turn."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import aiohttp
import kopf

from collective_operator.clock import Clock
from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.coordinator_status import DirectAccess, ProxyAccess
from collective_operator.cluster.following import Following
from collective_operator.cluster.kubernetes import KubernetesCluster
from collective_operator.cluster.lease import KubernetesLease
from collective_operator.cluster.memory import Memory
from collective_operator.cluster.protocol import ClusterError, TaskKey
from collective_operator.controller import Outcome, reconcile_once
from collective_operator.credentials.keeper import Keeper
from collective_operator.credentials.vigil import Vigil
from collective_operator.desired import Platform, names
from collective_operator.handlers import kopf_settings, registry_of
from collective_operator.leadership import Leadership
from collective_operator.metrics import OperatorMetrics
from collective_operator.probes import serving
from collective_operator.resync import Resync
from collective_operator.settings import Settings, in_cluster, own_namespace
from collective_operator.standby import leading
from collective_operator.urgency import is_urgent, makes_room
from collective_operator.workers import Workers

_MOST_POLLS_A_SECOND = 50
"""Of all coordinators together: where a thousand tasks run, each is asked every twenty seconds.  That a coordinator has
ended, with its verdict, is told by its pod."""


async def run_operator(settings: Settings) -> None:
    """Serve until a signal comes, or until the watches cannot go on.

    Raises
    ------
    LeadershipLostError
        Another operator acts now, or may: this process must end, and may be started again.
    """
    # A restarted container has its pod's name again, and must not take the Lease of its earlier life for its own.
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    metrics = OperatorMetrics()
    platform = Platform(
        learner_image=settings.learner_image,
        coordinator_image=settings.coordinator_image,
        image_pull_policy=settings.image_pull_policy,
        poll_seconds=settings.poll_seconds,
        network=settings.network,
        grafana_url=settings.grafana_url,
    )

    def count(*, verb: str, resource: str, code: int) -> None:
        metrics.requests.labels(verb, resource, str(code)).inc()

    async with AsyncExitStack() as stack:
        api = await ApiServer.connect(in_cluster=in_cluster(), agent=f"{names.MANAGER} ({identity})", count=count)
        stack.push_async_callback(api.close)
        ask: DirectAccess | ProxyAccess = ProxyAccess(api)
        if settings.direct:
            ask = DirectAccess(await stack.enter_async_context(aiohttp.ClientSession()))
        leadership = _leadership(api, identity, settings) if settings.leader_election else None
        if leadership:
            metrics.leader.set_function(leadership.leads)
        else:
            metrics.leader.set(1)
        memory, ticks = Memory(), asyncio.get_running_loop().time
        acting = api.acting(leadership.remaining if leadership else None)
        life = settings.certificate_life
        cluster = KubernetesCluster(
            api=acting,
            ask=ask,
            memory=memory,
            keeper=Keeper(api=acting, life=life, clock=lambda: datetime.now(UTC)),
            vigil=Vigil(clock=ticks, life=life),
            kinds=settings.child_kinds,
        )

        clock = Clock()

        async def turn(key: TaskKey, *, may_start: bool) -> Outcome:
            polls = max(settings.poll_seconds, len(workers) / _MOST_POLLS_A_SECOND)
            where = replace(platform, poll_seconds=polls)
            return await _measured_turn(
                cluster, key, now=clock.now(), platform=where, metrics=metrics, memory=memory, may_start=may_start
            )

        workers = Workers(turn=turn, settle_seconds=settings.settle_seconds)

        def heard(kind: str, manifest: Mapping[str, Any], *, gone: bool) -> None:
            key = memory.tell(kind, manifest, gone=gone)
            if key is None:
                return
            workers.wake(key, urgent=is_urgent(kind, manifest, gone=gone))
            if makes_room(kind, manifest, gone=gone) and (other := memory.waiting.room_was_made(key, now=ticks())):
                workers.wake(other)

        resync = Resync(cluster=cluster, memory=memory, workers=workers, known=metrics.tasks.keys, settings=settings)
        following = Following(api, tell=heard, began_anew=resync.doubt)
        await stack.enter_async_context(
            serving(
                host=settings.metrics_host,
                port=settings.metrics_port,
                registry=metrics.registry,
                ailment=lambda: resync.ailment() or following.ailment() or api.ailment(),
            )
        )
        lost = await stack.enter_async_context(leading(leadership)) if leadership else None
        ticking = asyncio.create_task(resync.run(), name="resync")

        async def start() -> None:
            # All at once, before the first watch: else each task would be looked at by itself.
            await resync.once()
            places = product(settings.child_kinds, settings.namespaces or (None,))
            following.start((kind, namespace, cluster.listed_at(kind, namespace)) for kind, namespace in places)

        async def stop() -> None:
            if lost:
                lost.set()  # or kopf would wait for five seconds for what waits for that, and another operator too
            ticking.cancel()
            await following.stop()
            await workers.close()
            await cluster.close()

        stack.push_async_callback(stop)
        await kopf.operator(
            registry=registry_of(
                tell=heard,
                began_anew=resync.doubt,
                start=start,
                stop=stop,
            ),
            settings=kopf_settings(settings),
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=lost,
        )


def _leadership(api: ApiServer, identity: str, settings: Settings) -> Leadership:
    lease = KubernetesLease(api=api, namespace=settings.lease_namespace or own_namespace(), name=settings.lease_name)
    return Leadership(leases=lease, identity=identity)


async def _measured_turn(
    cluster: KubernetesCluster,
    key: TaskKey,
    *,
    now: datetime,
    platform: Platform,
    metrics: OperatorMetrics,
    memory: Memory,
    may_start: bool,
) -> Outcome:
    with metrics.reconcile_seconds.time():
        try:
            outcome = await reconcile_once(cluster, key, now=now, platform=platform, may_start=may_start)
        except ClusterError:
            metrics.reconciles.labels("error").inc()
            if task := memory.task(key):  # as far as it came, its status was written
                metrics.tasks.note(key, task)
            raise
    metrics.reconciles.labels("success").inc()
    if outcome.task is None:
        metrics.tasks.forget(key)
    else:
        metrics.tasks.note(key, outcome.task)
    return outcome
