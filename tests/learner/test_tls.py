"""Mutual TLS: who gets in, who is taken for the learner, and certificates that are renewed while calls go on."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collective_learner import DefaultMliFactory, GRPCLearnerClient, GRPCServer, LearnerCallError, TlsError, TlsFiles
from collective_learner.cli import probe, serve
from collective_learner.tls import refusal
from collective_learner.wire.interface_pb2_grpc import GRPCLearnerStub

from ..pki import COORDINATOR, Pki, authority

SERVING = health_pb2.HealthCheckResponse.SERVING


def options(files: TlsFiles, *clients: str) -> list[str]:
    return [
        f"--tls-cert={files.certificate}",
        f"--tls-key={files.key}",
        f"--tls-ca={files.authority}",
        *(f"--tls-client={client}" for client in clients),
    ]


def version(address: str, files: TlsFiles | None) -> str:
    with GRPCLearnerClient("site", address, attempts=1, tls=files) as client:
        return client.version()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def secured(servers_of_module, pki: Pki):
    return servers_of_module.start(*options(pki.files(), COORDINATOR, "another.lab.svc"))


def test_everything_works_over_tls(secured, pki: Pki) -> None:
    with GRPCLearnerClient("site", secured.address, tls=pki.files(COORDINATOR, "client")) as client:
        client.setup_ml("TINY_DATA", {"location": "3"}, "TINY", {})
        proposed = client.mli_propose_weights()
        judged = client.mli_test_weights(proposed)
        assert judged.vote
        client.mli_accept_weights(proposed)
        assert client.status() == "WORKING"
        channel = client._connected()
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert health.status == SERVING


STRANGERS: dict[str, tuple[Callable[[Pki], TlsFiles | None], str]] = {
    "plain text": (lambda pki: None, "UNAVAILABLE"),
    "another task's coordinator": (
        lambda pki: pki.files(COORDINATOR, "client", signed_by=authority()),
        "UNAVAILABLE",
    ),
    "a learner of this task": (lambda pki: pki.files(), "UNAVAILABLE"),
    "a learner with the coordinator's name": (lambda pki: pki.files(COORDINATOR), "UNAVAILABLE"),
    "an expired certificate": (lambda pki: pki.files(COORDINATOR, "client", expired=True), "UNAVAILABLE"),
    "another name": (
        lambda pki: pki.files("digits-coordinator.other.svc", "client"),
        "PERMISSION_DENIED: the client's certificate is for digits-coordinator.other.svc, and only "
        f"{COORDINATOR}, another.lab.svc may call",
    ),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_strangers_are_turned_away(secured, pki: Pki, who: str) -> None:
    make, told = STRANGERS[who]
    with pytest.raises(LearnerCallError) as refused:
        version(secured.address, make(pki))
    assert told in f"{refused.value.code.name}: {refused.value.details}"


def test_a_client_without_any_certificate_is_turned_away(secured, pki: Pki) -> None:
    root = Path(pki.files().authority).read_bytes()
    with (
        grpc.secure_channel(secured.address, grpc.ssl_channel_credentials(root)) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        GRPCLearnerStub(channel).QueryVersion(Empty(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


IMPOSTORS: dict[str, Callable[[Pki], TlsFiles]] = {
    "another task's learner": lambda pki: pki.files(signed_by=authority()),
    "another learner of this task": lambda pki: pki.files("digits-learner-7.digits-learners.lab.svc"),
    "the coordinator as a learner": lambda pki: pki.files("127.0.0.1", "client"),
    "an expired certificate": lambda pki: pki.files(expired=True),
}


@pytest.mark.parametrize("who", IMPOSTORS)
def test_who_is_not_the_learner_that_was_dialled_is_not_spoken_to(pki: Pki, who: str) -> None:
    server = GRPCServer(DefaultMliFactory(), 0, "127.0.0.1", grace_s=5, tls=IMPOSTORS[who](pki))
    server.start()
    try:
        with pytest.raises(LearnerCallError, match=r"(?i)handshake failed|verification") as refused:
            version(f"127.0.0.1:{server.port}", pki.files(COORDINATOR, "client"))
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    finally:
        server.stop()


def test_without_names_whoever_has_a_certificate_may_call(servers, pki: Pki) -> None:
    server = servers.start(*options(pki.files()))
    assert version(server.address, pki.files("somebody.svc", "client")) == "1.0.0"


def test_an_older_tls_is_refused(secured, pki: Pki) -> None:
    class Old:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"ssl_tls_version": [b"TLSv1.2"], "x509_subject_alternative_name": [COORDINATOR.encode()]}

    assert refusal(Old(), clients=()) == "TLS 1.3 is needed, this connection speaks TLSv1.2"

    files = pki.files(COORDINATOR, "client")
    context = ssl.create_default_context(cafile=files.authority)
    context.load_cert_chain(files.certificate, files.key)
    with (
        socket.create_connection(("127.0.0.1", secured.port), 60) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connected,
    ):
        assert connected.version() == "TLSv1.3", "what two sides of today agree on"


def test_probes_and_prometheus_need_no_certificate(servers, pki: Pki, free_port: int, eventually) -> None:
    server = servers.start(*options(pki.files(), COORDINATOR), f"--metrics-port={free_port}")

    def page(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{free_port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    assert page("/healthz") == (200, "ok\n")
    version(server.address, pki.files(COORDINATOR, "client"))
    with pytest.raises(LearnerCallError):
        version(server.address, pki.files("nobody.svc", "client"))
    # A call is counted when it has ended, which may be after its caller has heard of it.
    for code, count in (("OK", 2), ("PERMISSION_DENIED", 1)):
        line = f'collective_rpc_total{{code="{code}",method="QueryVersion"}} {count}.0'
        eventually(lambda line=line: line in page("/metrics")[1], what=line)


def test_certificates_are_renewed_while_calls_go_on(servers, tmp_path: Path, eventually) -> None:
    pki = Pki(tmp_path)
    files, caller = pki.files(), pki.files(COORDINATOR, "client")
    server = servers.start(*options(files, COORDINATOR), program=("renewing_server.py",))
    go = tmp_path / "go"
    with GRPCLearnerClient("site", server.address, tls=caller) as client:
        model = {"mark": str(tmp_path), "faults": json.dumps({"propose": f"until:{go}"})}
        client.setup_ml("TINY_DATA", {"location": "3"}, "TINY", model)
        proposals: list[Any] = []
        training = threading.Thread(target=lambda: proposals.append(client.mli_propose_weights()))
        training.start()
        eventually(lambda: list(tmp_path.glob("propose-*")), what="training")

        def renewals(count: int) -> bool:
            return server.log().count("the certificate is renewed") == count

        # Renewed by another authority: who trusts the old one is not spoken to any more, and calls go on.
        other = authority()
        pki.renew(files, signed_by=other, trusted=other)
        eventually(lambda: renewals(1), what="a renewal")
        with pytest.raises(LearnerCallError, match=r"(?i)handshake failed"):
            version(server.address, caller)
        theirs = pki.files(COORDINATOR, "client", signed_by=other, trusted=other)
        assert version(server.address, theirs) == "1.0.0"

        # What cannot be used changes nothing.
        key = Path(files.key)
        broken = key.read_bytes()
        key.unlink()
        eventually(lambda: "the certificate is not renewed" in server.log(), what="a warning")
        assert version(server.address, theirs) == "1.0.0"
        key.write_bytes(broken)
        assert server.log().count("the certificate is not renewed") == 1

        # Back again: the client's own channel finds the server anew by itself.
        pki.renew(files)
        key.unlink()
        key.symlink_to("..data/tls.key")
        eventually(lambda: renewals(2), what="another renewal")
        assert client.version() == "1.0.0"
        assert not proposals, "the training outlasted all of it"
        go.touch()
        training.join(60)
        assert len(proposals) == 1
        assert client.mli_test_weights(proposals[0]).vote
    server.terminate()
    assert server.wait() == 0


def test_a_taken_port_is_an_error_also_with_tls(servers, secured, pki: Pki) -> None:
    fixed = (f"--port={secured.port}", "--host=127.0.0.1", "--metrics-port=0")
    second = servers.spawn("-m", "collective_learner", *fixed, *options(pki.files()))
    assert second.wait() == 1
    assert second.log().strip() == f"Error: cannot listen on 127.0.0.1, port {secured.port}: Address already in use"


def test_probe_over_tls(secured, pki: Pki) -> None:
    files = pki.files(COORDINATOR, "client")
    environment = {
        "COLLECTIVE_TLS_CERT": str(files.certificate),
        "COLLECTIVE_TLS_KEY": str(files.key),
        "COLLECTIVE_TLS_CA": str(files.authority),
    }
    done = CliRunner().invoke(probe, [f"--port={secured.port}"], env=environment)
    assert done.exit_code == 0, done.output
    assert "TINY_DATA" in done.output


def test_bad_files_are_one_clear_error(pki: Pki, tmp_path: Path) -> None:
    good, other = pki.files(), pki.files()
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no PEM")

    def files(**changed: str | Path) -> list[str]:
        given = {"certificate": good.certificate, "key": good.key, "authority": good.authority, **changed}
        return options(TlsFiles(**given))

    cases: list[tuple[list[str], int, str]] = [
        (["--tls-cert=x"], 2, "belong together: --tls-key and --tls-ca missing"),
        (["--tls-client=x"], 2, "--tls-client x needs --tls-cert, --tls-key and --tls-ca"),
        (files(certificate=tmp_path / "none"), 1, "none: No such file"),
        (files(key=other.key), 1, "KEY_VALUES_MISMATCH"),
        (files(key=nonsense), 1, "no certificate in PEM"),
        (files(authority=nonsense), 1, "holds no certificates"),
    ]
    for arguments, status, told in cases:
        done = CliRunner().invoke(serve, ["--port=0", "--metrics-port=0", "--host=127.0.0.1", *arguments])
        assert done.exit_code == status, done.output
        assert told in done.output
        assert re.search("^(Error|Usage)", done.output, re.M)
    with pytest.raises(ValueError, match="tls_clients"):
        GRPCServer(None, tls_clients=["x"])
    with pytest.raises(TlsError):
        TlsFiles(certificate=nonsense, key=nonsense, authority=nonsense).read()
