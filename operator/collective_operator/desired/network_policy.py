"""Who may speak with a task's pods, and with whom they may speak, for clusters whose network enforces it.

A learner takes calls from its own coordinator, and a scrape of its metrics. It calls nobody, but for names (DNS) and
for its data: what spec.learners.egress says, or else the port that the data's own URL names. So code that is trained
on private data cannot carry them away. A coordinator calls its learners, and whom the URLs of spec.result name, unless
spec.coordinator.egress says it better. A kubelet's probes come from the pod's own node, which is always let in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from collective_operator.api import CollectiveTask
from collective_operator.desired import names
from collective_operator.desired.metadata import metadata
from collective_operator.desired.platform import NetworkRules, Platform

Manifest = dict[str, Any]

_DNS = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
_PORTS = {"http": 80, "ftp": 21, "sftp": 22, "ssh": 22}
_HTTPS = 443
_HERE = ("file", "local", "memory")


def learners_policy(task: CollectiveTask, platform: Platform, rules: NetworkRules) -> Manifest:
    """Build the policy of all learners."""
    endpoint = platform.learner_endpoint(task, 0)
    learners = task.spec.learners
    said = learners.egress
    places = (learners.learner(index).location for index in range(learners.size))
    data = _needed_for(places) if said is None else map(_written, said)
    return _policy(
        task,
        name=names.learners(task.name),
        component=names.LEARNER,
        ingress=[
            {"from": [_pods_of(task, names.COORDINATOR)], "ports": _tcp(endpoint.port)},
            *_readers(rules.metrics, endpoint.metrics_port),
        ],
        egress=[_DNS, *data],
    )


def coordinator_policy(task: CollectiveTask, platform: Platform, rules: NetworkRules) -> Manifest:
    """Build the policy of the coordinator."""
    port = platform.coordinator_port
    readers = [*_readers((*rules.operator, *rules.metrics), port)] if rules.operator else [{"ports": _tcp(port)}]
    learners = {"to": [_pods_of(task, names.LEARNER)], "ports": _tcp(platform.learner_endpoint(task, 0).port)}
    said = task.spec.coordinator.egress
    results = _needed_for(task.spec.result.urls) if said is None else map(_written, said)
    return _policy(
        task,
        name=names.coordinator(task.name),
        component=names.COORDINATOR,
        ingress=readers,
        egress=[_DNS, learners, *results],
    )


def same(one: Any, other: Any) -> bool:
    """Tell whether two specs say the same; the API server drops members that say nothing."""
    return bool(_saying(one) == _saying(other))


def _saying(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _saying(member) for key, member in value.items() if not _is_silent(key, member)}
    return list(map(_saying, value)) if isinstance(value, list) else value


def _is_silent(name: str, value: Any) -> bool:
    """Tell whether a member says nothing; a selector without members does: it selects all."""
    return value is None or value == [] or (name == "matchLabels" and value == {})


def _policy(
    task: CollectiveTask, *, name: str, component: str, ingress: list[Manifest], egress: list[Manifest]
) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(task, name=name, component=component),
        "spec": {
            **_pods_of(task, component),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _pods_of(task: CollectiveTask, component: str) -> Manifest:
    return {"podSelector": {"matchLabels": {names.TASK_LABEL: task.name, names.COMPONENT_LABEL: component}}}


def _tcp(port: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port}]


def _readers(peers: Sequence[Manifest], port: int) -> Iterator[Manifest]:
    if peers:  # a rule that names nobody would let in everybody
        yield {"from": list(peers), "ports": _tcp(port)}


def _written(rule: Manifest) -> Manifest:
    """Write a rule as the API server would keep it."""
    ports = [
        {"protocol": "TCP"} | {name: value for name, value in port.items() if value is not None}
        for port in rule.get("ports", ())
    ]
    return {key: value for key, value in {**rule, "ports": ports}.items() if value}


def _needed_for(places: Iterable[str]) -> Iterator[Manifest]:
    """Yield what places need: the ports of their URLs, at any host, since policies know no host names."""
    for port in sorted({port for place in {*places} if (port := _port_of(place)) is not None}):
        yield {"ports": _tcp(port)}


def _port_of(location: str) -> int | None:
    url = location.rpartition("::")[2]  # fsspec's way to say how a URL is to be cached or unpacked
    scheme, separator, _ = url.partition("://")
    if not separator or scheme in _HERE:
        return None
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    return port or _PORTS.get(scheme, _HTTPS)
