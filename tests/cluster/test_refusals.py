"""What the API server will not have made: told in its words, asked for ever less often, and made once it may be."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from collective_operator.credentials.certificates import issue, new_authority, signer_of

from .control_plane import eventually
from .playground import Coordinator, Namespace, Operator, manifest
from .test_life import start

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
PROBE = {"metadata": {"generateName": "probe-"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}


def set_quota(namespace: Namespace, pods: int) -> None:
    """Bound the pods of a namespace; no controller counts here, so the test says what one would."""
    path, hard = f"{namespace.core}/resourcequotas", {"pods": str(pods)}
    used = {"pods": str(len(namespace.pods()))}
    quota: dict[str, Any] = {"metadata": {"name": "few"}, "spec": {"hard": hard}}
    there = namespace.plane.get(f"{path}/few")
    made = namespace.plane.request(*(("PUT", f"{path}/few") if there else ("POST", path)), quota)
    namespace.plane.request("PUT", f"{path}/few/status", {**made, "status": {"hard": hard, "used": used}})


def test_a_task_that_waits_for_a_quota_asks_for_little_and_goes_on_by_itself(
    namespace: Namespace, operator: Operator
) -> None:
    set_quota(namespace, 3)
    namespace.apply(manifest(learners={"count": 8}))
    words = namespace.await_reason("LearnersReady", "CreateRefused")["message"]
    assert "exceeded quota: few" in words
    plane = namespace.plane

    def asked(begin: int) -> Counter[str]:
        return Counter(plane.requests_of("collective", begin=begin, namespace=namespace.name))

    # It has waited for some seconds by then, and waits for as many again.
    begin = plane.audited()
    eventually(lambda: asked(begin)["create pods"] >= 2, what="two more tries")
    begin = plane.audited()
    found = eventually(lambda: found if (found := asked(begin))["create pods"] else None, what="one more try")
    assert found["create pods"] == 1 and found.total() <= 12, found
    assert namespace.condition("LearnersReady")["message"] == words
    set_quota(namespace, 9)
    eventually(lambda: len(namespace.pods()) == 9, timeout=60, what="all pods")
    eventually(lambda: namespace.condition("LearnersReady")["reason"] == "Starting", what="that nothing is wrong")


def test_who_waits_asks_soon_once_a_pod_of_another_task_has_gone(namespace: Namespace, operator: Operator) -> None:
    labels = {"collectivelearning.dev/task": "other"}
    pod = {
        "metadata": {"name": "other-learner-0", "labels": labels},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
    namespace.plane.request("POST", f"{namespace.core}/pods", pod)
    set_quota(namespace, 1)
    begin = namespace.plane.audited()
    namespace.apply(manifest())

    def tries() -> int:
        return namespace.plane.requests_of("collective", begin=begin, namespace=namespace.name).count("create pods")

    eventually(lambda: tries() >= 3 + 4, what="it has waited for sixteen seconds, and would for as many again")
    set_quota(namespace, 4)
    namespace.plane.request("DELETE", f"{namespace.core}/pods/other-learner-0", {"gracePeriodSeconds": 0})
    eventually(lambda: len(namespace.pods()) == 3, timeout=13, what="all pods")


def guard(namespace: Namespace, operation: str, *, port: int = 1) -> dict[str, Any]:
    """Have somebody asked who never answers, before anything is done with a pod of a namespace."""
    rule = {"apiGroups": [""], "resources": ["pods"], "operations": [operation]}
    return namespace.hook("guard.example.com", rule=rule, client={"url": f"https://127.0.0.1:{port}/guard"})


@contextmanager
def hanging_guard(namespace: Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Have somebody asked before a pod is made who hears it, and says nothing for as long as an API server waits.

    For the beginning of a connection it would not wait for so long.
    """
    now, life = datetime.now(UTC), timedelta(days=1)
    authority = new_authority("guard", now=now, life=life)
    pair = issue(signer_of(authority), name="127.0.0.1", usage="server", now=now, life=life)
    certificate, key = folder / "guard.crt", folder / "guard.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    over = threading.Event()

    class Silence(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            over.wait()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 4096

    with Server(("127.0.0.1", 0), Silence) as server:
        made = guard(namespace, "CREATE", port=server.server_address[1])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made["webhooks"][0]["timeoutSeconds"] = 30
        made["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(authority.certificate).decode()
        try:
            yield made
        finally:
            over.set()
            server.shutdown()
            thread.join()


def test_a_webhook_that_nobody_answers_is_told(namespace: Namespace, operator: Operator) -> None:
    namespace.plane.request("POST", HOOKS, guard(namespace, "CREATE"))
    try:
        path = f"{namespace.core}/pods?dryRun=All"
        eventually(lambda: refuses(namespace, path, PROBE), what="the webhook")
        namespace.apply(manifest())
        for kind in ("LearnersReady", "CoordinatorReady"):
            found = namespace.await_reason(kind, "CreateRefused")
            assert 'failed calling webhook "guard.example.com"' in found["message"]
    finally:
        namespace.plane.request("DELETE", f"{HOOKS}/{namespace.name}")
    namespace.await_pods(3)
    namespace.await_reason("LearnersReady", "Starting")


def test_what_keeps_pods_from_going_is_told(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    start(namespace, coordinator)
    coordinator.say(phase="Running")
    eventually(lambda: namespace.status()["phase"] == "Running")
    namespace.plane.request("POST", HOOKS, guard(namespace, "DELETE"))
    try:
        path = f"{namespace.core}/pods/digits-learner-0?dryRun=All"
        eventually(lambda: refuses(namespace, path, None, method="DELETE"), what="the webhook")
        patch = {"spec": {"suspend": True}}
        namespace.plane.request("PATCH", f"{namespace.tasks}/digits", patch, kind="application/merge-patch+json")
        words = namespace.await_reason("Suspended", "Suspending")["message"]
        assert 'digits-coordinator: Internal error occurred: failed calling webhook "guard.example.com"' in words
        assert namespace.status()["phase"] == "Suspending"
        assert len(namespace.pods()) == 3
    finally:
        namespace.plane.request("DELETE", f"{HOOKS}/{namespace.name}")
    namespace.await_reason("Suspended", "Suspended")
    assert namespace.await_events("Suspending", "Suspended")["Suspending"] == 1


def test_a_webhook_that_hangs_in_one_namespace_keeps_nobody_from_starting_in_another(
    namespace: Namespace, other_namespace: Namespace, operator: Operator, tmp_path: Path
) -> None:
    names = [f"digits-{number}" for number in range(40)]
    with hanging_guard(namespace, tmp_path) as hook:
        namespace.plane.request("POST", HOOKS, hook)
        try:
            path = f"{namespace.core}/pods?dryRun=All&timeout=1s"
            eventually(lambda: refuses(namespace, path, PROBE), what="the webhook")
            for name in names:
                namespace.plane.request("POST", namespace.tasks, manifest(name, learners={"count": 8}))
            eventually(lambda: "status" in namespace.task(names[23]), what="as many as may start at a time")
            other_namespace.apply(manifest())
            other_namespace.await_pods(3)
            assert "status" not in namespace.task(names[-1]), "it waits for those that the webhook holds"
        finally:
            namespace.plane.request("DELETE", f"{HOOKS}/{namespace.name}")


def refuses(namespace: Namespace, path: str, pod: Any, *, method: str = "POST") -> bool:
    try:
        namespace.plane.request(method, path, pod)
    except AssertionError:
        return True
    return False


def test_who_waits_for_a_task_that_has_ended_is_not_kept_waiting_by_an_edit(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    namespace.apply(manifest())
    namespace.await_pods(3)
    verdict = {"uid": namespace.task()["metadata"]["uid"], "phase": "Complete", "reason": "RoundsCompleted"}
    namespace.end_pod("digits-coordinator", phase="Succeeded", message=json.dumps(verdict))
    namespace.await_reason("Complete", "RoundsCompleted")
    namespace.apply(manifest(policy={"ttlSecondsAfterFinished": 3600}))
    wait = ("wait", "--for=condition=Complete", "ctask/digits", "--timeout=50s")
    namespace.plane.kubectl("-n", namespace.name, *wait)
    assert namespace.status()["observedGeneration"] == namespace.task()["metadata"]["generation"] == 2
