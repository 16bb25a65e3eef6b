"""The operator on a bad day of its API server: it restarts, turns requests away, drops watches, or goes silent on them.

Each test breaks something, then has something happen that the operator must see, and looks for what it does about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from .control_plane import ControlPlane, eventually
from .gateway import Gateway
from .playground import Namespace, Operator, manifest

WATCH = r"GET .*[?&]watch=true"
WATCH_OF_TASKS = r"GET .*/collectivetasks\?(.*&)?watch=true"
"""The one that is kopf's."""
GONE = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "code": 410,
    "reason": "Expired",
    "message": "too old resource version",
}


@pytest.fixture
def gateway(plane: ControlPlane, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(plane, tmp_path).running() as running:
        yield running


@pytest.fixture
def behind(gateway: Gateway, namespace: Namespace, shared_operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """An operator that knows the API server through the gateway alone."""
    shared_operator.stop()  # it serves every namespace
    options = ("--namespace", namespace.name, "--resync-seconds", "1000")
    operator = Operator(namespace.plane, tmp_path / "operator", options=options, kubeconfig=gateway.kubeconfig)
    operator.start()
    try:
        yield operator
    finally:
        operator.stop()


def loses_a_pod(namespace: Namespace, name: str = "digits-learner-1") -> str:
    uid = namespace.uid(name)
    assert uid
    namespace.plane.request("DELETE", f"{namespace.core}/pods/{name}?gracePeriodSeconds=0")
    return uid


def sees_it(namespace: Namespace, operator: Operator, uid: str, *, within: float = 60) -> None:
    """See that the lost pod comes back in time, by the same process."""
    eventually(lambda: namespace.uid("digits-learner-1") not in (None, uid), timeout=within, what="a new learner")
    assert operator.process.poll() is None, operator.log.read_text()


def begins(namespace: Namespace) -> None:
    namespace.apply(manifest())
    namespace.await_pods(3)
    eventually(lambda: namespace.condition("LearnersReady"))


def test_turned_away_it_waits_as_long_as_it_is_told_and_loses_nothing(
    gateway: Gateway, behind: Operator, namespace: Namespace
) -> None:
    refusal = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "later"}
    posts = gateway.answer("^(POST|PUT) ", 429, refusal, times=12, Retry_After="1")
    lists = gateway.answer("^GET .*(pods|services|configmaps)", 429, refusal, times=6, Retry_After="1")
    namespace.apply(manifest())
    namespace.await_pods(3)
    eventually(lambda: len(namespace.all_children()) == 12)
    assert posts.times == 0
    eventually(lambda: ("Normal", "Accepted", "the spec is valid") in namespace.events())
    gateway.answer(WATCH, 429, refusal, times=10, Retry_After="1")
    gateway.cut()
    uid = loses_a_pod(namespace)
    sees_it(namespace, behind, uid)
    eventually(lambda: lists.times == 0)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, {"type": "ERROR", "object": GONE}), (500, None), (403, None), (401, None)],
    ids=["gone", "internal", "forbidden", "unauthorized"],
)
def test_a_watch_that_is_refused_begins_anew(
    gateway: Gateway, behind: Operator, namespace: Namespace, status: int, body: object
) -> None:
    begins(namespace)
    gateway.answer(WATCH, status, body, times=8)
    gateway.cut()
    uid = loses_a_pod(namespace)
    sees_it(namespace, behind, uid)


def test_what_kopf_cannot_go_on_from_ends_the_process_and_the_next_one_goes_on(
    gateway: Gateway, behind: Operator, namespace: Namespace
) -> None:
    begins(namespace)
    gateway.answer(WATCH_OF_TASKS, 410, GONE)
    gateway.cut()
    assert behind.process.wait(60) == 1, "so that whoever runs it starts it again"
    uid = loses_a_pod(namespace)
    behind.start()
    sees_it(namespace, behind, uid)


def test_a_watch_that_is_dropped_begins_anew(gateway: Gateway, behind: Operator, namespace: Namespace) -> None:
    begins(namespace)
    for _ in range(3):
        gateway.cut()
        sees_it(namespace, behind, loses_a_pod(namespace))


@pytest.mark.slow
def test_a_watch_that_goes_silent_is_given_up(gateway: Gateway, behind: Operator, namespace: Namespace) -> None:
    begins(namespace)
    gateway.silence()
    sees_it(namespace, behind, loses_a_pod(namespace), within=120)
    assert behind.read("/healthz") == "ok"


def test_an_api_server_that_restarts_finds_it_where_it_was(
    plane: ControlPlane, gateway: Gateway, behind: Operator, namespace: Namespace
) -> None:
    begins(namespace)
    before = {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()}
    with plane.without_api_server():
        eventually(lambda: "will retry" in behind.log.read_text(), timeout=60, what="that it notices")
        assert behind.read("/healthz") == "ok", "a restart would not help"
    assert {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()} == before
    sees_it(namespace, behind, loses_a_pod(namespace))
    after = {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()}
    assert after["digits-coordinator"] == before["digits-coordinator"]
    assert namespace.task()["status"]["coordinator"]["attempts"] == 0


def test_an_authority_that_was_changed_is_known_after_a_restart_that_is_asked_for(
    gateway: Gateway, behind: Operator, namespace: Namespace
) -> None:
    begins(namespace)
    gateway.renew_authority()
    gateway.cut()

    def ails() -> bool:
        try:
            return behind.read("/healthz") == ""
        except HTTPError as error:
            return "certificate is not trusted" in error.read().decode()

    eventually(ails, what="that it is not well")
    assert "is no JSON" not in behind.log.read_text()
    uid = loses_a_pod(namespace)
    behind.stop()
    behind.start()
    sees_it(namespace, behind, uid)
