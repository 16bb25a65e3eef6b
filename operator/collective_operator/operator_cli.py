"""`collective operator`: what the operator's image runs, and what runs outside a cluster on the current kubeconfig."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import aiohttp
import click
import kopf
import uvloop
from kubernetes.aio.config import ConfigException

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
from collective_operator.leadership import Leadership, LeadershipLostError
from collective_operator.log_lines import OneLine
from collective_operator.metrics import OperatorMetrics
from collective_operator.object_names import object_name, object_names
from collective_operator.peers import peers
from collective_operator.probes import PortTakenError, serving
from collective_operator.resync import Resync
from collective_operator.settings import DEFAULT_IMAGE, DEFAULT_LEARNER_IMAGE, Settings, in_cluster, own_namespace
from collective_operator.standby import StoppedError, leading
from collective_operator.urgency import is_urgent, makes_room
from collective_operator.web_address import web_address
from collective_operator.workers import Workers

_ALLOCATIONS_A_COLLECTION = 20_000
_MOST_POLLS_A_SECOND = 50
"""Of all coordinators together: where a thousand tasks run, each is asked every twenty seconds.  That a coordinator has
ended, with its verdict, is told by its pod."""
_LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


@click.command(context_settings={"auto_envvar_prefix": "COLLECTIVE", "show_default": True})
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    callback=object_names,
    envvar="COLLECTIVE_NAMESPACE",
    show_envvar=True,
    help="Serve tasks of this namespace only; repeatable. All, when there is none.",
)
@click.option(
    "--learner-image", default=DEFAULT_LEARNER_IMAGE, show_envvar=True, help="Image of learners whose task names none."
)
@click.option(
    "--coordinator-image", default=DEFAULT_IMAGE, show_envvar=True, help="Image of coordinators: the operator's own."
)
@click.option(
    "--image-pull-policy",
    type=click.Choice(["Always", "IfNotPresent", "Never"]),
    default="IfNotPresent",
    show_envvar=True,
    help="Of both images.",
)
@click.option(
    "--coordinator-access",
    type=click.Choice(["direct", "proxy", "auto"]),
    default="auto",
    show_envvar=True,
    help="Ask coordinators at their pod's address, or through the API server.",
)
@click.option(
    "--certificate-hours",
    type=click.FloatRange(0.01, 87600),
    default=2160.0,
    show_envvar=True,
    help="How long the certificates of pods are valid; they are renewed after two thirds of it.",
)
@click.option(
    "--network-policies/--no-network-policies",
    default=True,
    show_envvar=True,
    help="Guard pods by NetworkPolicies.",
)
@click.option(
    "--operator-from",
    callback=peers,
    default="[]",
    show_envvar=True,
    help="JSON list of NetworkPolicyPeers that this operator's own requests come from; with none, whoever asks "
    "coordinators is let in.",
)
@click.option(
    "--metrics-from",
    callback=peers,
    default="[]",
    show_envvar=True,
    help="JSON list of NetworkPolicyPeers that may read the metrics of pods; with none, nobody may.",
)
@click.option(
    "--grafana-url",
    callback=web_address,
    default="",
    show_envvar=True,
    help="Where people find Grafana, such as https://grafana.example.com: tasks' status links to their dashboards.",
)
@click.option(
    "--metrics-host",
    default="0.0.0.0",  # noqa: S104 - probes and Prometheus come from other hosts
    show_envvar=True,
    help="Address of /metrics and /healthz.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    default=8081,
    show_envvar=True,
    help="Port of /metrics and /healthz.",
)
@click.option(
    "--leader-election/--no-leader-election",
    default=False,
    show_envvar=True,
    help="Let a Lease decide which of several operators acts; without it there must be only one.",
)
@click.option(
    "--lease-namespace",
    callback=object_name,
    default="",
    show_envvar=True,
    show_default="its own",
    help="Namespace of the Lease.",
)
@click.option(
    "--lease-name", callback=object_name, default="collective-operator", show_envvar=True, help="Name of the Lease."
)
@click.option(
    "--poll-seconds",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_envvar=True,
    help="How often a running coordinator is asked for its progress.",
)
@click.option(
    "--resync-seconds",
    type=click.FloatRange(1, 86400),
    default=300.0,
    show_envvar=True,
    help="How often every unfinished task is looked at without an event.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_envvar=True)
def operator(log_level: str, **options: Any) -> None:
    """Serve CollectiveTasks: in a pod, or outside of a cluster on the current kubeconfig."""
    level = log_level.upper()
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(_LOG_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
    if level != "DEBUG":
        # kopf tells of each event that it hands over.
        logging.getLogger("kopf").setLevel(logging.WARNING)
    settings = Settings(**options)
    # What a thousand tasks come to is a large heap with no garbage in it that counting references would not find.
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_A_COLLECTION)
    try:
        with suppress(StoppedError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_operator(settings))
    except ConfigException as error:
        raise click.ClickException(f"no way to an API server: {error}") from error
    except (PortTakenError, LeadershipLostError) as error:
        raise click.ClickException(str(error)) from error


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
            polls = max(settings.poll_seconds, len(workers.active()) / _MOST_POLLS_A_SECOND)
            where = replace(platform, poll_seconds=polls)
            return await _measured_turn(
                cluster, key, now=clock.now(), platform=where, metrics=metrics, may_start=may_start
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
                ailment=lambda: resync.ailment() or following.ailment(),
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
            ticking.cancel()
            await following.stop()
            await workers.close()

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
    may_start: bool,
) -> Outcome:
    with metrics.reconcile_seconds.time():
        try:
            outcome = await reconcile_once(cluster, key, now=now, platform=platform, may_start=may_start)
        except ClusterError:
            metrics.reconciles.labels("error").inc()
            raise
    metrics.reconciles.labels("success").inc()
    if outcome.task is None:
        metrics.tasks.forget(key)
    else:
        metrics.tasks.note(key, outcome.task)
    return outcome
