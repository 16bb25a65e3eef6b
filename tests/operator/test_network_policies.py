"""NetworkPolicies, judged as a network would: who gets through to whom, and at which port."""

from __future__ import annotations

import copy
import ipaddress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from collective_operator.api import TaskInvalid, parse_task
from collective_operator.desired import NetworkRules, desired_children
from collective_operator.desired.network_policy import same
from collective_operator.reconcile import Update

from .world import PLATFORM, manifest, running

Manifest = dict[str, Any]
RULES = NetworkRules(
    operator=(
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "collective-operator"}},
        },
    ),
    metrics=({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},),
)


@dataclass(frozen=True)
class Host:
    """A pod, or with no namespace an address outside."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = "10.0.0.1"


def children(task: Manifest, rules: NetworkRules | None = RULES) -> dict[tuple[str, str], Manifest]:
    found = desired_children(parse_task(task), replace(PLATFORM, network=rules))
    return {(child.kind, child.name): child.build() for child in found}


def pod(task: Manifest, name: str) -> Host:
    found = children(task)["Pod", name]["metadata"]
    return Host(found["namespace"], found["labels"])


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(peer: Manifest, host: Host, own: str) -> bool:
    if "ipBlock" in peer:
        return not host.namespace and ipaddress.ip_address(host.address) in ipaddress.ip_network(
            peer["ipBlock"]["cidr"]
        )
    if not host.namespace or not selects(peer.get("podSelector", {}), host.labels):
        return False
    if "namespaceSelector" not in peer:
        return host.namespace == own
    return selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": host.namespace})


def passes(policies: list[Manifest], side: str, here: Host, there: Host, port: int, protocol: str) -> bool:
    """Tell whether the policies on one side of a connection let it through."""
    mine = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == here.namespace and selects(policy["spec"]["podSelector"], here.labels)
    ]
    if not mine:
        return True
    direction, peers = ("ingress", "from") if side == "in" else ("egress", "to")
    return any(
        (peers not in rule or any(is_peer(peer, there, here.namespace) for peer in rule[peers]))
        and (
            "ports" not in rule
            or any(
                each["port"] <= port <= each.get("endPort", each["port"]) and each["protocol"] == protocol
                for each in rule["ports"]
            )
        )
        for policy in mine
        for rule in policy["spec"][direction]
    )


def reaches(tasks: list[Manifest], source: Host, target: Host, port: int, protocol: str = "TCP") -> bool:
    policies = [child for task in tasks for (kind, _), child in children(task).items() if kind == "NetworkPolicy"]
    return passes(policies, "out", source, target, port, protocol) and passes(
        policies, "in", target, source, port, protocol
    )


OWN = manifest()
OTHER = copy.deepcopy(OWN) | {"metadata": {**OWN["metadata"], "name": "other", "uid": "other-uid"}}
NAMESAKE = copy.deepcopy(OWN) | {"metadata": {**OWN["metadata"], "namespace": "elsewhere", "uid": "namesake-uid"}}
TASKS = [OWN, OTHER, NAMESAKE]
LEARNER, SECOND, COORDINATOR = (pod(OWN, f"digits-{name}") for name in ("learner-0", "learner-1", "coordinator"))
OPERATOR = Host("system", {"app.kubernetes.io/name": "collective-operator"})
PROMETHEUS = Host("monitoring", {"app": "prometheus"})
STRANGER = Host("default", {"app": "anything"})
OUTSIDE = Host(address="93.184.216.34")
DNS = Host("kube-system", {"k8s-app": "kube-dns"})


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (COORDINATOR, LEARNER, 9995, True),
        (COORDINATOR, LEARNER, 9091, False),
        (PROMETHEUS, LEARNER, 9091, True),
        (PROMETHEUS, LEARNER, 9995, False),
        (OPERATOR, LEARNER, 9995, False),
        (OPERATOR, LEARNER, 9091, False),
        (SECOND, LEARNER, 9995, False),
        (STRANGER, LEARNER, 9995, False),
        (STRANGER, LEARNER, 9091, False),
        (OUTSIDE, LEARNER, 9995, False),
        (pod(OTHER, "other-coordinator"), LEARNER, 9995, False),
        (pod(NAMESAKE, "digits-coordinator"), LEARNER, 9995, False),
        (OPERATOR, COORDINATOR, 8080, True),
        (PROMETHEUS, COORDINATOR, 8080, True),
        (STRANGER, COORDINATOR, 8080, False),
        (Host("system", {"app": "anything"}), COORDINATOR, 8080, False),
        (LEARNER, COORDINATOR, 8080, False),
        (LEARNER, STRANGER, 443, False),
        (LEARNER, OUTSIDE, 443, False),
        (COORDINATOR, OUTSIDE, 443, False),
        (COORDINATOR, STRANGER, 80, False),
        (COORDINATOR, pod(OTHER, "other-learner-0"), 9995, False),
    ],
)
def test_who_reaches_whom(source: Host, target: Host, port: int, expected: bool) -> None:
    assert reaches(TASKS, source, target, port) is expected


def test_names_can_be_resolved() -> None:
    for host in (LEARNER, COORDINATOR):
        assert reaches(TASKS, host, DNS, 53, "UDP")
        assert reaches(TASKS, host, DNS, 53, "TCP")


@pytest.mark.parametrize(
    ("location", "ports"),
    [
        ("/data/{index}", set()),
        ("{index}/{count}", set()),
        ("local://data", set()),
        ("C:/data", set()),
        ("s3://bucket/{index}.csv", {443}),
        ("gs://bucket/{index}", {443}),
        ("az://container/x", {443}),
        ("https://data.example.com/{index}", {443}),
        ("http://data.example.com/{index}", {80}),
        ("http://minio.storage.svc:9000/{index}", {9000}),
        ("sftp://nas/{index}", {22}),
        ("simplecache::s3://bucket/{index}.csv", {443}),
        ("zip://*.csv::https://data.example.com:8443/all.zip", {8443}),
        ("http://host:port/x", {80}),
        ("s3://b:99999/x", {443}),
    ],
)
def test_learners_may_go_where_their_data_are(location: str, ports: set[int]) -> None:
    task = manifest(learners={"count": 2, "location": location})
    open_ports = {port for port in (22, 80, 443, 8443, 9000) if reaches([task], LEARNER, OUTSIDE, port)}
    assert open_ports == ports


@pytest.mark.parametrize(
    ("result", "ports"),
    [
        ({}, set()),
        ({"location": "file:///models/digits", "tensorBoard": "/logs"}, set()),
        ({"location": "s3://models/digits"}, {443}),
        ({"location": "sftp://nas/models", "mlflow": "http://mlflow.lab.svc:5000"}, {22, 5000}),
        ({"mlflow": "https://mlflow.example.com", "tensorBoard": "gs://logs/digits"}, {443}),
    ],
)
def test_a_coordinator_may_go_where_results_go(result: Manifest, ports: set[int]) -> None:
    task = manifest(result=result)
    for place in (OUTSIDE, STRANGER):
        assert {port for port in (22, 80, 443, 5000) if reaches([task], COORDINATOR, place, port)} == ports
        assert not reaches([task], LEARNER, place, 443), "that is not the learners' business"
    said = manifest(result=result, coordinator={"egress": [{"ports": [{"port": 9000}]}]})
    assert {port for port in (22, 443, 5000, 9000) if reaches([said], COORDINATOR, OUTSIDE, port)} == {9000}


EGRESS = [
    {"to": [{"ipBlock": {"cidr": "93.184.216.0/24"}}], "ports": [{"port": 9000, "endPort": 9010}]},
    {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}]},
]


def test_egress_says_it_better() -> None:
    task = manifest(learners={"count": 2, "location": "s3://b", "egress": EGRESS})
    storage = Host("storage", {"app": "minio"})
    assert not reaches([task], LEARNER, OUTSIDE, 443), "what is said counts, and not what the location would need"
    assert reaches([task], LEARNER, OUTSIDE, 9005)
    assert not reaches([task], LEARNER, Host(address="8.8.8.8"), 9005)
    assert reaches([task], LEARNER, storage, 1)
    nobody = manifest(learners={"count": 2, "location": "s3://b", "egress": []})
    assert not reaches([nobody], LEARNER, OUTSIDE, 443)
    collector = manifest(coordinator={"egress": [{"ports": [{"port": 4318}]}]})
    assert reaches([collector], COORDINATOR, STRANGER, 4318)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"from": []}, "lists `to` and `ports`, and nothing else"),
        ({"to": {}}, "lists `to` and `ports`, and nothing else"),
        ({"to": [{}]}, "ipBlock, namespaceSelector or podSelector"),
        ({"to": [{"cidr": "0.0.0.0/0"}]}, "ipBlock, namespaceSelector or podSelector"),
        ({"ports": [443]}, "port, endPort or protocol"),
        ({"ports": [{"number": 443}]}, "port, endPort or protocol"),
    ],
)
def test_bad_egress_is_named(rule: Manifest, told: str) -> None:
    with pytest.raises(TaskInvalid) as refused:
        parse_task(manifest(learners={"count": 2, "egress": [{}, rule]}))
    (problem,) = refused.value.problems
    assert problem.path == "spec.learners.egress[1]"
    assert told in problem.message


def test_an_operator_outside_of_the_cluster_cannot_be_named() -> None:
    policies = [child for (kind, _), child in children(OWN, NetworkRules()).items() if kind == "NetworkPolicy"]
    assert passes(policies, "in", COORDINATOR, STRANGER, 8080, "TCP")
    assert not passes(policies, "in", LEARNER, PROMETHEUS, 9091, "TCP"), "nobody may read metrics"
    assert not [key for key in children(OWN, None) if key[0] == "NetworkPolicy"]


def test_a_policy_is_put_right_and_left_alone_when_it_is() -> None:
    said = [
        {"to": [{"podSelector": {"matchLabels": {}}, "namespaceSelector": None}]},
        {"ports": [{"port": 443, "protocol": None}]},
    ]
    world = running(learners={"count": 2, "egress": said})
    policy = world.children["network_policies"]["digits-learners"]
    # The API server drops what says nothing, and fills in what is not said.
    policy["spec"]["egress"][1:] = [{"to": [{"podSelector": {}}]}, {"ports": [{"port": 443, "protocol": "TCP"}]}]
    assert world.look().actions == ()
    policy["spec"]["ingress"].append({})
    (action,) = world.look().actions
    assert isinstance(action, Update)
    assert world.look().actions == ()
    del world.children["network_policies"]["digits-coordinator"]
    assert len(world.look().actions) == 1


def test_a_changed_egress_reaches_learners_that_run() -> None:
    world = running(learners={"count": 2, "location": "x"})
    world.task["spec"]["learners"]["egress"] = EGRESS
    (action,) = world.look().actions
    assert isinstance(action, Update)
    assert action.manifest["metadata"]["name"] == "digits-learners"


def test_sameness() -> None:
    assert same({"a": None, "b": [], "c": [{"d": {}}]}, {"c": [{"d": {}}]})
    assert same({"podSelector": {"matchLabels": {}, "matchExpressions": []}}, {"podSelector": {}})
    assert not same({"c": [{}]}, {"c": [{"podSelector": {}}]})
    assert not same({"c": [1]}, {"c": [1, 2]})
