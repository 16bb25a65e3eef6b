"""Keys and certificates on a real API server: made, found again, renewed, and made anew when somebody broke them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import load_kube_config

from collective_operator.api import parse_task
from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.connection import Connection
from collective_operator.cluster.protocol import ClusterError
from collective_operator.credentials.certificates import KeyPair, flaw
from collective_operator.credentials.keeper import Keeper
from collective_operator.desired import Platform
from collective_operator.desired.credentials import credentials
from collective_operator.securing import Secure

from .control_plane import ControlPlane, eventually
from .playground import Coordinator, Manifest, Namespace, Operator, manifest
from .test_life import start

PODS = ("digits-learner-0", "digits-learner-1", "digits-coordinator")
SECRETS = {"digits-ca", *(f"{pod}-tls" for pod in PODS)}
LIFE = timedelta(days=90)


def data(secret: Manifest) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


def secrets(namespace: Namespace) -> dict[str, Manifest]:
    found = namespace.plane.request("GET", f"{namespace.core}/secrets")["items"]
    return {secret["metadata"]["name"]: secret for secret in found}


def sound(namespace: Namespace, now: datetime | None = None) -> bool:
    """Tell whether all Secrets are there and fit together."""
    found = {name: data(secret) for name, secret in secrets(namespace).items()}
    if found.keys() != SECRETS:
        return False
    authority = found["digits-ca"]["tls.crt"]
    names = {f"digits-learner-{index}": f"digits-learner-{index}.digits-learners" for index in range(2)}
    return all(
        found[f"{pod}-tls"]["ca.crt"] == authority
        and flaw(
            KeyPair(found[f"{pod}-tls"]["tls.crt"], found[f"{pod}-tls"]["tls.key"]),
            authority=authority,
            name=f"{names.get(pod, pod)}.{namespace.name}.svc",
            usage="client" if pod.endswith("coordinator") else "server",
            now=now or datetime.now(UTC),
        )
        is None
        for pod in PODS
    )


def test_each_pod_has_its_own_and_nobody_the_authoritys(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(manifest())
    pods = namespace.await_pods(3)
    assert sound(namespace)
    uid = namespace.task()["metadata"]["uid"]
    for secret in secrets(namespace).values():
        assert secret["type"] == "kubernetes.io/tls"
        (owner,) = secret["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (uid, True, True)
        certificate = x509.load_pem_x509_certificate(data(secret)["tls.crt"])
        begins = datetime.now(UTC) - certificate.not_valid_before_utc
        assert timedelta(minutes=59) < begins < timedelta(minutes=70), "clocks may differ by an hour"
    mounted = {
        name: [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        for name, pod in pods.items()
    }
    assert mounted == {name: [f"{name}-tls"] for name in pods}


def test_off_is_said_in_a_condition_and_an_event(namespace: Namespace, operator: Operator, tmp_path: Path) -> None:
    # As people write it; to YAML that is a boolean.
    file = tmp_path / "task.yaml"
    file.write_text(
        "apiVersion: collectivelearning.dev/v1alpha1\nkind: CollectiveTask\nmetadata: {name: digits}\n"
        "spec: {model: {name: M}, dataLoader: {name: D}, rounds: 3, learners: {count: 2}, tls: {mode: Off}}\n"
    )
    namespace.plane.kubectl("-n", namespace.name, "apply", "-f", str(file))
    pods = namespace.await_pods(3)
    assert not secrets(namespace)
    assert not [
        argument for pod in pods.values() for argument in pod["spec"]["containers"][0]["args"] if "tls" in argument
    ]
    accepted = namespace.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "TLSOff")
    assert "spec.tls.mode is Off" in accepted["message"]
    eventually(lambda: ("Warning", "TLSOff", accepted["message"]) in namespace.events())
    refused = namespace.apply(manifest(model={"name": "M"}, dataLoader={"name": "D"}, rounds=3), check=False)
    assert "spec.tls is immutable" in refused.stderr


def test_what_an_operator_without_tls_began_goes_on_without(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    operator.stop()
    namespace.apply(manifest())
    task = namespace.task()
    owner = {
        "apiVersion": task["apiVersion"], "kind": task["kind"], "name": "digits", "uid": task["metadata"]["uid"],
        "controller": True,
    }  # fmt: skip
    labels = {"collectivelearning.dev/task": "digits"}
    for name in ("digits-learner-0", "digits-coordinator"):
        namespace.plane.request(
            "POST",
            f"{namespace.core}/pods",
            {
                "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        )
    before = {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()}
    operator.start()
    pods = namespace.await_pods(3)
    assert before.items() <= {name: pod["metadata"]["uid"] for name, pod in pods.items()}.items()
    assert "tls" not in str(pods["digits-learner-1"]["spec"])
    assert not secrets(namespace)
    assert not [child for child in namespace.all_children() if child.startswith("networkpolicies")]
    assert "an operator from before TLS began it" in namespace.condition("Accepted")["message"]


def test_a_pod_that_comes_back_finds_its_key_and_one_that_cannot_have_any_is_not_made(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    theirs = {"metadata": {"name": "digits-learner-1-tls"}, "stringData": {"a": "b"}}
    namespace.plane.request("POST", f"{namespace.core}/secrets", theirs)
    namespace.apply(manifest())
    found = namespace.await_reason("LearnersReady", "CreateRefused")
    assert "digits-learner-1-tls: a Secret of this name exists and is not this task's" in found["message"]
    assert set(namespace.await_pods(2)) == {"digits-learner-0", "digits-coordinator"}
    namespace.plane.request("DELETE", f"{namespace.core}/secrets/digits-learner-1-tls")
    namespace.await_pods(3)
    assert sound(namespace)

    uid = namespace.uid("digits-learner-1")
    assert uid
    namespace.plane.request("DELETE", f"{namespace.core}/secrets/digits-learner-1-tls")
    namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-learner-1")
    namespace.await_another("digits-learner-1", uid)
    assert sound(namespace), "made anew before its pod"


@pytest.fixture
def hasty(plane: ControlPlane, namespace: Namespace, operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """An operator whose certificates live for 36 seconds, and who looks at them every three."""
    operator.stop()  # it would serve this namespace, too
    options = [f"--namespace={namespace.name}", "--certificate-hours=0.01"]
    operator = Operator(plane, tmp_path, options=options)
    operator.start()
    yield operator
    operator.stop()


def test_deleted_and_broken_ones_are_made_anew_while_the_task_runs(
    namespace: Namespace, hasty: Operator, coordinator: Coordinator
) -> None:
    start(namespace, coordinator)
    coordinator.say(phase="Running", round={"current": 1, "total": 20, "accepted": 1})
    eventually(lambda: namespace.status()["phase"] == "Running")
    before, pods = secrets(namespace), {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()}

    namespace.plane.request("DELETE", f"{namespace.core}/secrets/digits-learner-0-tls")
    eventually(lambda: sound(namespace), what="a new Secret")
    now = secrets(namespace)
    assert now["digits-ca"]["data"] == before["digits-ca"]["data"]
    assert now["digits-learner-0-tls"]["data"] != before["digits-learner-0-tls"]["data"]

    namespace.plane.request("DELETE", f"{namespace.core}/secrets/digits-ca")
    eventually(lambda: sound(namespace), what="a new authority, by which all are signed")
    assert secrets(namespace)["digits-ca"]["data"] != before["digits-ca"]["data"]

    broken = {"data": {"tls.key": base64.b64encode(b"nonsense").decode()}}
    path = f"{namespace.core}/secrets/digits-coordinator-tls"
    namespace.plane.request("PATCH", path, broken, kind="application/merge-patch+json")
    eventually(lambda: sound(namespace), what="a key again")
    eventually(
        lambda: any(
            reason == "CredentialsRenewed" and "digits-coordinator-tls: it cannot be used" in message
            for _, reason, message in namespace.events()
        )
    )
    assert {name: pod["metadata"]["uid"] for name, pod in namespace.pods().items()} == pods, "and no pod is touched"
    assert namespace.status()["phase"] == "Running"


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def api(plane: ControlPlane) -> AsyncIterator[ApiServer]:
    configuration = Configuration()
    await load_kube_config(config_file=str(plane.kubeconfig), client_configuration=configuration)
    server = ApiServer(Connection(configuration, agent="a test"), lambda **_: None)
    yield server
    await server.close()


def a_task() -> Manifest:
    """One that an operator which serves other tests leaves alone."""
    return manifest(managedBy="kueue.x-k8s.io/multikueue")


def everything(namespace: Namespace, *pods: str) -> Secure:
    """Ask for some pods' credentials, or for all."""
    task = parse_task(namespace.task())
    everyone = tuple(credentials(task, Platform(learner_image="l", coordinator_image="c")))
    return Secure(tuple(each for each in everyone if each.pod in (pods or PODS)), everyone)


async def test_renewed_in_the_last_third_of_a_life(namespace: Namespace, api: ApiServer) -> None:
    clock = Clock()
    keeper = Keeper(api=api, life=LIFE, clock=clock)
    namespace.apply(a_task())
    action = everything(namespace)
    assert (await keeper.secure(action)).renewed == ()
    first = secrets(namespace)
    assert sound(namespace)
    clock.now += LIFE / 2
    assert (await keeper.secure(action)).renewed == ()
    assert secrets(namespace) == first, "nothing is written while all is well"
    clock.now += LIFE / 5
    secured = await keeper.secure(action)
    assert [line.partition(":")[0] for line in secured.renewed] == sorted(SECRETS - {"digits-ca"})
    assert all("it expires on" in line for line in secured.renewed)
    assert secrets(namespace)["digits-ca"] == first["digits-ca"]
    assert sound(namespace, clock.now)
    # An operator that was away for years finds the authority itself too old.
    clock.now += LIFE * 40
    await keeper.secure(action)
    assert secrets(namespace)["digits-ca"]["data"] != first["digits-ca"]["data"]
    assert sound(namespace, clock.now)


async def test_sets_that_were_left_half_written_become_whole(namespace: Namespace, api: ApiServer) -> None:
    keeper = Keeper(api=api, life=LIFE, clock=Clock())
    namespace.apply(a_task())
    await keeper.secure(everything(namespace, "digits-learner-0"))
    assert secrets(namespace).keys() == {"digits-ca", "digits-learner-0-tls"} | SECRETS, "a new authority signs all"
    for gone in (SECRETS, {"digits-ca"}, {"digits-learner-1-tls"}, {"digits-ca", "digits-coordinator-tls"}):
        for name in gone:
            namespace.plane.request("DELETE", f"{namespace.core}/secrets/{name}")
        await keeper.secure(everything(namespace))
        assert sound(namespace)


async def test_two_operators_at_once_agree(namespace: Namespace, api: ApiServer) -> None:
    keepers = [Keeper(api=api, life=LIFE, clock=Clock()) for _ in range(3)]
    namespace.apply(a_task())
    action = everything(namespace)

    async def until_done(keeper: Keeper) -> None:
        for _ in range(20):
            try:
                await keeper.secure(action)
            except ClusterError as error:
                assert error.conflict, error
                continue
            return
        raise AssertionError("it never comes to an end")

    await asyncio.gather(*map(until_done, keepers))
    await keepers[0].secure(action)
    assert sound(namespace)


@pytest.mark.parametrize("garbage", [{}, {"tls.crt": b"", "tls.key": b""}, {"tls.crt": b"x", "tls.key": os.urandom(9)}])
async def test_an_authority_that_cannot_be_read_is_made_anew(
    namespace: Namespace, api: ApiServer, garbage: dict[str, bytes]
) -> None:
    keeper = Keeper(api=api, life=LIFE, clock=Clock())
    namespace.apply(a_task())
    await keeper.secure(everything(namespace))
    broken: dict[str, Any] = secrets(namespace)["digits-ca"]
    broken["data"] = {"tls.crt": "", "tls.key": ""} | {
        key: base64.b64encode(value).decode() for key, value in garbage.items()
    }
    namespace.plane.request("PUT", f"{namespace.core}/secrets/digits-ca", broken)
    await keeper.secure(everything(namespace, "digits-learner-0"))
    assert sound(namespace)


async def test_what_may_not_be_made_is_told_by_pod(namespace: Namespace, api: ApiServer) -> None:
    keeper = Keeper(api=api, life=LIFE, clock=Clock())
    namespace.apply(a_task())
    namespace.plane.request("POST", f"{namespace.core}/secrets", {"metadata": {"name": "digits-ca"}})
    secured = await keeper.secure(everything(namespace))
    assert secured.refused == dict.fromkeys(PODS, "digits-ca: a Secret of this name exists and is not this task's")
