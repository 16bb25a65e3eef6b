"""Two operators and one Lease, on a real API server: kill -9, SIGTERM, and a leader that was asleep."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .control_plane import ControlPlane, eventually
from .playground import Namespace, Operator, manifest


class Pair:
    """Two operators that serve one namespace."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self._lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace.name}/leases/pair"
        options = (
            *("--leader-election", "--lease-namespace", namespace.name, "--lease-name", "pair"),
            *("--namespace", namespace.name),
            *("--log-level", "debug"),  # kopf tells so alone what it waited for in the end
        )
        self.operators = [Operator(namespace.plane, folder / name, options=options) for name in ("one", "two")]

    def start(self) -> None:
        for operator in self.operators:
            operator.start()

    def stop(self) -> None:
        for operator in self.operators:
            operator.process.send_signal(signal.SIGCONT)
            operator.stop()

    def holder(self) -> str:
        lease = self._namespace.plane.get(self._lease)
        return str(lease["spec"]["holderIdentity"]) if lease else ""

    def roles(self) -> tuple[Operator, Operator]:
        """Tell who leads, and who waits."""

        def find() -> list[Operator] | None:
            roles = sorted(
                self.operators, key=lambda operator: "collective_leader 1.0" not in operator.read("/metrics")
            )
            leads = ["collective_leader 1.0" in operator.read("/metrics") for operator in roles]
            return roles if leads == [True, False] else None

        leader, other = eventually(find, what="one leader")
        return leader, other

    def await_another(self, holder: str) -> None:
        eventually(lambda: self.holder() not in ("", holder), what=f"another leader than {holder}")


def leads(operator: Operator) -> bool:
    return "collective_leader 1.0" in operator.read("/metrics")


def writes(plane: ControlPlane, *, by: str) -> list[str]:
    """Find in the audit log what one operator has written."""
    written = (event for event in plane.events() if event["verb"] in ("create", "update", "patch", "delete"))
    return [f"{event['verb']} {event['requestURI']}" for event in written if by in event.get("userAgent", "")]


@pytest.fixture
def pair(namespace: Namespace, shared_operator: Operator, tmp_path: Path) -> Iterator[Pair]:
    shared_operator.stop()  # it serves every namespace, and asks no Lease
    made = Pair(namespace, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_another_acts_soon_after_the_leader_was_killed(namespace: Namespace, pair: Pair) -> None:
    leader, other = pair.roles()
    namespace.apply(manifest())
    before = namespace.await_pods(3)
    leader.kill()
    namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-learner-1")
    eventually(
        lambda: namespace.uid("digits-learner-1") not in (None, before["digits-learner-1"]["metadata"]["uid"]),
        what="the other's doing",
    )
    assert leads(other)
    leader.start()  # so that it can be stopped


def test_a_leader_that_is_told_to_go_hands_over(namespace: Namespace, pair: Pair) -> None:
    leader, _ = pair.roles()
    holder = pair.holder()
    leader.process.terminate()
    assert leader.process.wait(60) == 0
    left = "Hung tasks stopping is skipped: no tasks given"
    assert left in leader.log.read_text(), "kopf waits for five seconds for what is left running"
    lease = namespace.plane.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace.name}/leases/pair")
    assert lease["spec"]["holderIdentity"] != holder, "it was left to run out"
    pair.await_another(holder)
    namespace.apply(manifest())
    namespace.await_pods(3)
    leader.start()


def test_one_that_waits_goes_when_it_is_told_to(pair: Pair) -> None:
    _, other = pair.roles()
    holder = pair.holder()
    other.process.terminate()
    assert other.process.wait(60) == 0
    assert pair.holder() == holder
    other.start()


def test_a_leader_that_was_asleep_does_nothing_when_it_wakes_up(
    plane: ControlPlane, namespace: Namespace, pair: Pair
) -> None:
    leader, other = pair.roles()
    holder = pair.holder()
    for number in range(20):
        plane.request("POST", namespace.tasks, manifest(f"digits-{number}"))
    eventually(lambda: len(namespace.pods()) > 10, every=0.01)
    leader.process.send_signal(signal.SIGSTOP)  # with requests under way, and connections that are being made
    pair.await_another(holder)
    namespace.await_pods(60)
    before = len(writes(plane, by=holder))
    assert before > 3, "the audit log knows who made the pods"
    # What it will find in its watches when it wakes up: work.
    other.process.send_signal(signal.SIGSTOP)
    for name in ("digits-0-learner-0", "digits-0-learner-1"):
        plane.request("DELETE", f"{namespace.core}/pods/{name}?gracePeriodSeconds=0")
    namespace.apply(manifest("another"))
    eventually(lambda: len(namespace.pods()) == 58)
    leader.process.send_signal(signal.SIGCONT)
    assert leader.process.wait(60) == 1
    assert "could not renew its lease in time" in leader.log.read_text()
    assert len(namespace.pods()) == 58, "made by one that does not lead"
    assert len(writes(plane, by=holder)) == before
    other.process.send_signal(signal.SIGCONT)  # to lead on, or to end, if it was asleep for too long
    leader.start()
    namespace.await_pods(63)
