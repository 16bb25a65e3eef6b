"""A webhook in the cluster that puts the operator's rules back as soon as they are written, as policy engines do.

What it has decided stands: the operator says once for each wish of the task's owner what it wants, and does not write
at every turn what nothing comes of.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from collective_operator.credentials.certificates import issue, new_authority, signer_of

from .control_plane import eventually
from .playground import Coordinator, Manifest, Namespace, Operator, manifest
from .test_life import start

HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
LIFE = timedelta(hours=1)
Patch = list[Manifest]
Judge = Callable[[Manifest], Patch]
"""From the old and the new object, as an AdmissionReview has them, to what is to be changed of the new one."""


@contextmanager
def webhook(namespace: Namespace, judge: Judge, folder: Path) -> Iterator[None]:
    """Have whatever is written to NetworkPolicies of a namespace changed, over TLS, as the API server wants it."""
    authority = new_authority("webhook", now=datetime.now(UTC), life=LIFE)
    pair = issue(signer_of(authority), name="127.0.0.1", usage="server", now=datetime.now(UTC), life=LIFE)
    files = folder / "webhook.crt", folder / "webhook.key"
    for path, content in zip(files, (pair.certificate, pair.key), strict=True):
        path.write_bytes(content)
    asked = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request, asked_for = review["request"], json.dumps(judge(review["request"]))
            patch = {"patchType": "JSONPatch", "patch": base64.b64encode(asked_for.encode()).decode()}
            answer = {**review, "response": {"uid": request["uid"], "allowed": True, **patch}}
            body = json.dumps({key: answer[key] for key in ("apiVersion", "kind", "response")}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            asked.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    rule = {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "operations": ["UPDATE"]}
    client = {
        "url": f"https://127.0.0.1:{server.server_address[1]}/",
        "caBundle": base64.b64encode(authority.certificate).decode(),
    }
    namespace.plane.request("POST", HOOKS, namespace.hook("policy.example.com", rule=rule, client=client))
    try:
        probe = f"{path_of(namespace)}?dryRun=All"
        eventually(
            lambda: namespace.plane.request("PATCH", probe, {}, kind="application/merge-patch+json") and asked.is_set(),
            what="that the webhook is asked",
        )
        yield
    finally:
        namespace.plane.request("DELETE", f"{HOOKS}/{namespace.name}")
        server.shutdown()
        server.server_close()
        thread.join()


def path_of(namespace: Namespace) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies/digits-learners"


def puts_back() -> Judge:
    """Let no rule be changed: what is written is what was there, and the API server writes nothing."""
    return lambda review: [{"op": "replace", "path": "/spec", "value": review["oldObject"]["spec"]}]


def puts_back_and_signs() -> Judge:
    """Let no rule be changed, and tell by an annotation how often that was tried: each try makes a new version."""
    tries = count()

    def judge(review: Manifest) -> Patch:
        signed = {"op": "add", "path": "/metadata/annotations", "value": {"policy.example.com/tries": f"{next(tries)}"}}
        return [*puts_back()(review), signed]

    return judge


@pytest.mark.parametrize("judge", [puts_back, puts_back_and_signs])
def test_what_a_webhook_puts_back_is_written_once_for_each_wish(
    namespace: Namespace, operator: Operator, coordinator: Coordinator, tmp_path: Path, judge: Callable[[], Judge]
) -> None:
    learners: dict[str, Any] = {"count": 2, "location": "x{index}"}
    start(namespace, coordinator, learners=learners)
    coordinator.say(phase="Running", learners=[{"name": "learner-0", "state": "Ready"}])
    eventually(lambda: namespace.status()["phase"] == "Running")

    def wish(port: int) -> None:
        namespace.apply(manifest(learners={**learners, "egress": [{"ports": [{"port": port}]}]}))

    def written(begin: int) -> int:
        asked = namespace.plane.requests_of("collective", begin=begin, namespace=namespace.name)
        return asked.count("update networkpolicies")

    def turns(number: int) -> None:
        before = coordinator.asked
        eventually(lambda: coordinator.asked >= before + number, what=f"{number} turns")

    def ports() -> list[int]:
        rules = namespace.plane.get(path_of(namespace))["spec"]["egress"]
        return [port["port"] for rule in rules for port in rule["ports"]]

    with webhook(namespace, judge(), tmp_path):
        for port in (8001, 8002):
            begin = namespace.plane.audited()
            wish(port)
            eventually(lambda begin=begin: written(begin) >= 1, what="a try")
            turns(6)
            assert written(begin) == 1
            assert ports() == [53, 53]
        assert namespace.status()["phase"] == "Running", "nothing else of it stands still"
    wish(8003)
    eventually(lambda: ports() == [53, 53, 8003], what="the rule, as nobody puts it back any more")
