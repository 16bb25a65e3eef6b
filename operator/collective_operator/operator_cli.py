"""`collective operator`: what the operator's image runs, and what runs outside a cluster on the current kubeconfig."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress
from typing import Any

import click
import uvloop
from kubernetes.aio.config import ConfigException

from collective_operator.leadership import LeadershipLostError
from collective_operator.log_lines import OneLine
from collective_operator.object_names import object_name, object_names
from collective_operator.peers import peers
from collective_operator.probes import PortTakenError
from collective_operator.program import run_operator
from collective_operator.settings import DEFAULT_IMAGE, DEFAULT_LEARNER_IMAGE, Settings
from collective_operator.standby import StoppedError
from collective_operator.web_address import web_address

_ALLOCATIONS_A_COLLECTION = 20_000
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
