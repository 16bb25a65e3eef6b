"""Mutual TLS between real pods: who gets through, and an authority that is replaced while rounds go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .kube import TASK, Namespace, wait_for
from .test_digits import ENDLESS, gone, long_task

DIR = "/etc/collective/tls"

CALL = """
import sys, grpc
from google.protobuf.empty_pb2 import Empty
from collective_learner.tls import TlsFiles
address, how = sys.argv[1:]
files = TlsFiles(**{key: f"/etc/collective/tls/{name}" for key, name in
                    (("certificate", "tls.crt"), ("key", "tls.key"), ("authority", "ca.crt"))})
if how == "mutual":
    channel = grpc.secure_channel(address, files.read().for_client())
elif how == "anonymous":
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(files.read().authority))
else:
    channel = grpc.insecure_channel(address)
query = channel.unary_unary("/contract_learn.grpc.GRPCLearner/QueryVersion", Empty.SerializeToString, bytes)
try:
    query(Empty(), timeout=40)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name)
"""

HANDSHAKE = """
import socket, ssl, sys
host, port = sys.argv[1].rsplit(":", 1)
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile="/etc/collective/tls/ca.crt")
    context.load_cert_chain("/etc/collective/tls/tls.crt", "/etc/collective/tls/tls.key")
    context.minimum_version = context.maximum_version = version
    try:
        with socket.create_connection((host, int(port)), 40) as raw, context.wrap_socket(raw, server_hostname=host):
            print(version.name, "yes")
    except OSError:
        print(version.name, "no")
"""

FOLDER = """
import json, os, sys
found = {name: oct(os.stat(f"/etc/collective/tls/{name}").st_mode & 0o777) for name in os.listdir("/etc/collective/tls")
         if not name.startswith(".")}
print(json.dumps(found))
"""


def endless(name: str) -> dict[str, Any]:
    task = long_task(name)
    task["spec"]["rounds"] = ENDLESS
    task["spec"]["learners"]["count"] = 2
    task["spec"]["model"]["parameters"]["epochs"] = 2
    return task


@pytest.fixture(scope="module")
def two(lab: Namespace, system: Namespace) -> Iterator[tuple[str, str]]:
    """Two tasks whose rounds run."""
    names = ("one", "two")
    for name in names:
        lab.apply(endless(name))
    for name in names:
        wait_for(f"rounds of {name}", lambda name=name: lab.rounds_decided(name) >= 2, seconds=240)
    yield names
    for name in names:
        gone(lab, name)


def learner(lab: Namespace, task: str, index: int) -> str:
    return f"{task}-learner-{index}.{task}-learners.{lab.name}.svc:9995"


def python(lab: Namespace, pod: str, script: str, *arguments: str) -> str:
    return lab.kubectl("exec", pod, "--", "python", "-c", script, *arguments, seconds=120).strip()


def test_only_the_coordinator_of_a_task_reaches_its_learners(lab: Namespace, two: tuple[str, str]) -> None:
    own = learner(lab, "one", 0)
    assert python(lab, "one-coordinator", CALL, own, "mutual") == "OK"
    assert python(lab, "two-coordinator", CALL, own, "mutual") == "UNAVAILABLE", "another task's coordinator"
    assert python(lab, "one-learner-1", CALL, own, "mutual") == "UNAVAILABLE", "a learner of the same task"
    assert python(lab, "one-coordinator", CALL, own, "anonymous") == "UNAVAILABLE", "no certificate"
    assert python(lab, "one-coordinator", CALL, own, "plain") == "UNAVAILABLE", "plain text"
    assert python(lab, "one-coordinator", HANDSHAKE, own).split("\n") == ["TLSv1_2 no", "TLSv1_3 yes"]


def test_a_pod_holds_its_own_key_alone(lab: Namespace, two: tuple[str, str]) -> None:
    for pod in ("one-learner-0", "one-coordinator"):
        files = json.loads(python(lab, pod, FOLDER))
        assert files == {"tls.crt": "0o440", "tls.key": "0o440", "ca.crt": "0o440"}
    keys = [lab.get("secret", f"one-{pod}-tls")["data"]["tls.key"] for pod in ("learner-0", "learner-1", "coordinator")]
    assert len(set(keys)) == 3
    policies = {policy["metadata"]["name"] for policy in lab.items("networkpolicies", f"{TASK}=one")}
    assert policies == {"one-learners", "one-coordinator"}


def test_an_authority_is_replaced_while_rounds_go_on(lab: Namespace, two: tuple[str, str]) -> None:
    pods = ("one-learner-0", "one-learner-1", "one-coordinator")
    before = lab.uids(f"{TASK}=one")
    old = lab.get("secret", "one-ca")
    lab.kubectl("delete", "secret", "one-ca")

    def resigned() -> bool:
        new = lab.get("secret", "one-ca")
        secrets = [lab.get("secret", f"{pod}-tls") for pod in pods]
        return (
            bool(new)
            and new["data"] != old["data"]
            and all(secret and secret["data"]["ca.crt"] == new["data"]["tls.crt"] for secret in secrets)
        )

    wait_for("a new authority, by which all are signed", resigned, seconds=240)
    for pod in pods:
        wait_for(
            f"{pod} to take its new certificate",
            lambda pod=pod: "the certificate is renewed" in lab.kubectl("logs", pod),
            seconds=400,
        )
    decided = lab.rounds_decided("one")
    wait_for("more rounds", lambda: lab.rounds_decided("one") >= decided + 5, seconds=240)
    assert python(lab, "one-coordinator", CALL, learner(lab, "one", 0), "mutual") == "OK"
    assert lab.uids(f"{TASK}=one") == before, "no pod was replaced"
    restarts = [pod["status"]["containerStatuses"][0]["restartCount"] for pod in lab.items("pods", f"{TASK}=one")]
    assert restarts == [0, 0, 0]
    assert "CredentialsRenewed" in lab.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
