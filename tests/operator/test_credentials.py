"""Keys and certificates: when they are looked at, what is wrong with them, and what follows when there are none."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from collective_operator.api import TaskInvalid, parse_task
from collective_operator.cluster.protocol import (
    Cluster,
    ClusterError,
    Manifest,
    Observed,
    Secured,
    TaskEvent,
    TaskKey,
)
from collective_operator.controller import reconcile_once
from collective_operator.credentials.certificates import (
    BACKDATED,
    KeyPair,
    flaw,
    flaw_of_authority,
    issue,
    new_authority,
    signer_of,
)
from collective_operator.credentials.vigil import Vigil
from collective_operator.desired.credentials import credentials
from collective_operator.reconcile import Decision
from collective_operator.securing import Secure

from .world import PLATFORM, START, World, manifest, running

LEARNERS = {"digits-learner-0", "digits-learner-1"}
ALL = {*LEARNERS, "digits-coordinator"}
NAME = "digits-learner-0.digits-learners.default.svc"
LIFE = timedelta(days=90)


def secured(decision: Decision) -> set[str]:
    return {credential.pod for credential in decision.secure.credentials} if decision.secure else set()


def test_keys_come_before_their_pods_and_are_looked_at_when_it_is_time() -> None:
    world = World()
    assert secured(world.look()) == set(), "nothing is done before the task is accepted"
    assert secured(world.look()) == ALL
    assert secured(world.look()) == set()
    del world.pods["digits-learner-1"]
    decision = world.look()
    assert secured(decision) == {"digits-learner-1"}
    assert decision.secure and {credential.pod for credential in decision.secure.all} == ALL
    world.credentials_due = True
    assert secured(world.look()) == ALL


def test_what_a_pod_is_told_of_its_keys() -> None:
    world = World()
    world.settle()
    for name, pod in world.pods.items():
        (container,) = pod["spec"]["containers"]
        told = [argument for argument in container["args"] if "tls" in argument]
        assert told[:3] == [f"--tls-{what}=/etc/collective/tls/{file}" for what, file in
                            (("cert", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt"))]  # fmt: skip
        clients = [] if name == "digits-coordinator" else ["--tls-client=digits-coordinator.default.svc"]
        assert told[3:] == clients
        assert {"name": "tls", "mountPath": "/etc/collective/tls", "readOnly": True} in container["volumeMounts"]
        assert container["env"][0]["name"] == "GRPC_SSL_CIPHER_SUITES"
        volumes = [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert volumes == [f"{name}-tls"], "its own alone"
    made = {each.pod: (each.name, each.usage) for each in credentials(parse_task(manifest()), PLATFORM)}
    assert made == {
        **{f"{pod}": (f"{pod}.digits-learners.default.svc", "server") for pod in LEARNERS},
        "digits-coordinator": ("digits-coordinator.default.svc", "client"),
    }


@pytest.mark.parametrize("mode", ["Off", False])
def test_off_is_said(mode: Any) -> None:
    world = running(tls={"mode": mode})
    assert not world.secured
    assert "tls" not in str(world.pods)
    accepted = world.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "TLSOff")
    assert "whoever reaches the task's pods can read and change" in accepted["message"]
    assert world.told.count(("Warning", "TLSOff")) == 1
    assert world.status["reason"] == "RoundsRunning", "and hides nothing else"


@pytest.mark.parametrize("mode", ["off", True, "TLS", None, 0])
def test_other_modes_are_refused(mode: Any) -> None:
    with pytest.raises(TaskInvalid) as refused:
        parse_task(manifest(tls={"mode": mode}))
    (problem,) = refused.value.problems
    assert problem.path == "spec.tls.mode"
    assert "'Mutual' or 'Off'" in problem.message


def test_pods_from_before_tls_go_on_without_it_until_none_is_left() -> None:
    world = running(tls={"mode": "Off"})
    world.children["network_policies"].clear()
    del world.task["spec"]["tls"]  # what an older definition stored
    del world.pods["digits-learner-1"]
    decision = world.look()
    assert secured(decision) == set()
    assert "tls" not in str(world.pods["digits-learner-1"])
    assert not world.children["network_policies"]
    assert world.condition("Accepted")["reason"] == "TLSOff"
    world.pods.clear()
    assert secured(world.look()) == ALL
    assert world.children["network_policies"]
    world.settle()
    assert world.condition("Accepted")["reason"] == "Accepted"


def test_a_laptop_has_no_tls_and_says_nothing_of_it() -> None:
    assert not list(credentials(parse_task(manifest()), replace(PLATFORM, secured=False)))


class Refusing:
    """A cluster that makes what it is asked for, but for some."""

    def __init__(self, *, secrets: Mapping[str, str] | None = None, refuses: Sequence[str] = ()) -> None:
        self.task: Manifest = manifest()
        self.secrets = secrets or {}
        self.refuses = refuses
        self.made: list[str] = []
        self.events: list[TaskEvent] = []
        self.renewed: tuple[str, ...] = ()
        self.order: list[str] = []

    async def get_task(self, key: TaskKey, *, anew: bool = True) -> Manifest:
        return self.task

    async def observe(self, task: Manifest, *, anew: bool = True) -> Observed:
        return Observed()

    async def secure(self, task: Manifest, action: Secure) -> Secured:
        self.order.append("Secret")
        return Secured(refused=dict(self.secrets), renewed=self.renewed)

    async def create(self, child: Manifest, *, strictly: bool = True) -> None:
        name = f"{child['kind']}/{child['metadata']['name']}"
        self.order.append(child["kind"])
        if name in self.refuses:
            raise ClusterError(status=422, message=f"{name} is nonsense")
        self.made.append(name)

    async def update_status(self, task: Manifest, status: Mapping[str, Any]) -> None:
        self.task = {**task, "status": dict(status)}

    def emit(self, task: Manifest, events: Sequence[TaskEvent]) -> None:
        self.events += events

    async def begun(self) -> Refusing:
        await reconcile_once(cast("Cluster", self), TaskKey("default", "digits"), now=START, platform=PLATFORM)
        return self

    def pods(self) -> set[str]:
        return {name.removeprefix("Pod/") for name in self.made if name.startswith("Pod/")}

    def condition(self, kind: str) -> Manifest:
        return {found["type"]: found for found in self.task["status"]["conditions"]}[kind]


async def test_a_pod_is_not_made_without_what_it_needs() -> None:
    cluster = await Refusing(secrets={"digits-learner-1": "digits-learner-1-tls: quota"}).begun()
    assert cluster.pods() == ALL - {"digits-learner-1"}
    assert (
        cluster.condition("LearnersReady")["message"] == "0 of 2 ready; digits-learner-1: digits-learner-1-tls: quota"
    )
    assert cluster.order[0] == "Secret"
    assert cluster.order.index("Pod") > max(number for number, kind in enumerate(cluster.order) if kind != "Pod"), (
        "pods come last"
    )

    cluster = await Refusing(refuses=["NetworkPolicy/digits-learners"]).begun()
    assert cluster.pods() == {"digits-coordinator"}, "no learner runs unguarded"
    assert "NetworkPolicy/digits-learners is nonsense" in cluster.condition("LearnersReady")["message"]

    cluster = await Refusing(refuses=["ConfigMap/digits-coordinator"]).begun()
    assert cluster.pods() == LEARNERS
    assert cluster.condition("CoordinatorReady")["reason"] == "CreateRefused"


async def test_renewals_are_told_in_one_event() -> None:
    cluster = Refusing()
    cluster.renewed = ("digits-learner-0-tls: it expires on ...", "digits-learner-1-tls: it expires on ...")
    await cluster.begun()
    (event,) = [event for event in cluster.events if event.reason == "CredentialsRenewed"]
    assert event.message == "; ".join(cluster.renewed)
    assert event.type == "Normal"


def authority(now: datetime = START) -> KeyPair:
    return new_authority("digits-ca", now=now, life=40 * LIFE)


def learner(by: KeyPair, now: datetime = START) -> KeyPair:
    return issue(signer_of(by), name=NAME, usage="server", now=now, life=LIFE)


def test_what_is_wrong_with_a_certificate() -> None:
    ours, theirs = authority(), authority()
    pair = learner(ours)

    def judged(
        found: KeyPair = pair,
        *,
        by: KeyPair = ours,
        name: str = NAME,
        usage: Any = "server",
        after: timedelta = timedelta(0),
    ) -> str:
        told = flaw(found, authority=by.certificate, name=name, usage=usage, now=START + after)
        return told or "nothing"

    assert judged() == "nothing"
    assert judged(after=LIFE * 0.66) == "nothing"
    assert judged(after=-BACKDATED) == "nothing"
    assert judged(after=LIFE * 0.67) == "it expires on 2026-04-01T00:00:00Z"
    assert judged(after=-2 * BACKDATED) == "it is valid only from 2025-12-31T23:00:00Z"
    assert judged(by=theirs) == "another authority has signed it"
    assert judged(name="digits-learner-1.digits-learners.default.svc") == "it is for somebody else"
    assert judged(usage="client") == "it is for somebody else"
    assert judged(KeyPair(pair.certificate, learner(ours).key)) == "it cannot be used: its key is another one's"
    for broken in (
        KeyPair(b"", b""),
        KeyPair(pair.certificate, b"x"),
        KeyPair(b"x", pair.key),
        KeyPair(ours.certificate, ours.key),
    ):
        assert judged(broken).startswith("it cannot be used"), broken


def test_what_is_wrong_with_an_authority() -> None:
    ours = authority()
    assert flaw_of_authority(ours, now=START) is None
    assert flaw_of_authority(ours, now=START + 20 * LIFE) is None
    assert "it expires on" in (flaw_of_authority(ours, now=START + 30 * LIFE) or "")
    assert flaw_of_authority(learner(ours), now=START) == "it is no authority"
    assert "it cannot be read" in (flaw_of_authority(KeyPair(b"", b""), now=START) or "")


def test_whatever_byte_of_a_certificate_is_damaged_is_told_and_nothing_fails() -> None:
    """An unknown version, an extension that is there twice: each is an error of its own to who reads it."""
    ours = authority()
    pair = learner(ours)
    for position in range(_signed_bytes(pair)):
        told = flaw(_damaged(pair, position), authority=ours.certificate, name=NAME, usage="server", now=START)
        assert told, position
    for position in range(_signed_bytes(ours)):
        assert flaw_of_authority(_damaged(ours, position), now=START), position


def _signed_bytes(pair: KeyPair) -> int:
    """How much of a certificate comes before its signature, which can be written in more than one way."""
    return len(_der(pair.certificate)) - 80


def _damaged(pair: KeyPair, position: int) -> KeyPair:
    der = bytearray(_der(pair.certificate))
    der[position] ^= 1
    return KeyPair(ssl.DER_cert_to_PEM_cert(bytes(der)).encode(), pair.key)


def _der(certificate: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.decode())


def test_nobody_outlives_who_signed_for_them() -> None:
    ours = authority()
    late = START + 40 * LIFE - timedelta(days=1)
    told = flaw(
        learner(ours, late), authority=ours.certificate, name=NAME, usage="server", now=late + timedelta(days=1)
    )
    assert told == "it expires on 2035-11-10T00:00:00Z"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_looks_are_spread_and_few() -> None:
    clock = Clock()
    vigil = Vigil(clock=clock, life=LIFE)
    keys = [TaskKey("lab", f"task-{number}") for number in range(200)]
    looks = 0
    for _ in range(3000):
        for key in keys:
            if vigil.due(key, secrets=50):
                vigil.looked(key)
                looks += 50
        clock.now += 20
    assert 0.2 < looks / clock.now < 0.35, "requests a second"

    one = Vigil(clock=clock, life=LIFE)
    assert not one.due(keys[0], secrets=4), "a task that is new, or an operator that is"
    clock.now += 60
    assert one.due(keys[0], secrets=4)
    assert one.due(keys[0], secrets=4), "until somebody has looked"
    one.looked(keys[0])
    assert not one.due(keys[0], secrets=4)
    one.forget(keys[0])
    one.looked(keys[0])
    assert not one.due(keys[0], secrets=4)


def test_short_lives_are_looked_at_often() -> None:
    clock = Clock()
    vigil = Vigil(clock=clock, life=timedelta(minutes=6))
    key = TaskKey("lab", "digits")
    vigil.due(key, secrets=1000)
    clock.now += 30
    assert vigil.due(key, secrets=1000)
