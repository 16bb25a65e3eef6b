"""The chart's rights: the operator uses each of them, asks for nothing beyond, and needs none on the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .control_plane import ControlPlane, eventually
from .playground import Coordinator, Namespace, Operator, manifest
from .rights import HOW_TO, chart_rights, find_helm, forbidden, install_rights, rights_of, used
from .test_life import start

NOT_ASKED_FOR = {
    # Looked up by the admission plugin OwnerReferencesPermissionEnforcement, where a cluster has that.
    ("update", "collectivelearning.dev", "collectivetasks/finalizers"),
    # Asked for once a pod has been in the making for long, see test_complaints.py.
    ("list", "", "events"),
}


@pytest.fixture
def helm() -> str:
    found = find_helm()
    if found is None:
        pytest.skip(HOW_TO)
    return found


def life(namespace: Namespace, coordinator: Coordinator) -> None:
    """Have the operator do all that it does: a task from its first pod to its end, and all that can come between."""
    strangers = {
        f"{namespace.core}/pods": {"name": "digits-learner-0"},
        f"{namespace.core}/services": {"name": "digits-learners"},
        f"{namespace.core}/configmaps": {"name": "digits-coordinator"},
        f"{namespace.core}/persistentvolumeclaims": {"name": "digits-coordinator"},
        f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies": {"name": "digits-coordinator"},
    }
    specs: dict[str, Any] = {
        "pods": {"containers": [{"name": "c", "image": "i"}]},
        "services": {"clusterIP": "None"},
        "persistentvolumeclaims": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}},
        "networkpolicies": {"podSelector": {}},
    }
    for path, metadata in strangers.items():
        kind = path.rsplit("/", 1)[1]
        namespace.plane.request(
            "POST", path, {"metadata": metadata, **({"spec": specs[kind]} if kind in specs else {})}
        )
    learners = {"count": 2, "location": "x{index}", "codeFrom": {"configMapRef": {"name": "code"}}}
    namespace.config_map("code", {"a.py": ""})
    policy = {"ttlSecondsAfterFinished": 2}
    namespace.apply(manifest(learners=learners, policy=policy))
    namespace.await_reason("LearnersReady", "CreateRefused")
    # The pod's goes last: without its Service it is not even tried.
    for path, metadata in reversed(strangers.items()):
        if path.endswith("/pods"):
            eventually(lambda: "a Pod of this name" in namespace.condition("LearnersReady")["message"])
        # The grace of a pod that no kubelet knows would never end.
        namespace.plane.request("DELETE", f"{path}/{metadata['name']}", {"gracePeriodSeconds": 0})
    namespace.await_pods(3)
    uid = start(namespace, coordinator, learners=learners, policy=policy)
    coordinator.say(phase="Running", learners=[{"name": "learner-0", "state": "Ready"}])
    eventually(lambda: namespace.status()["phase"] == "Running")
    guard = f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies/digits-learners"
    namespace.plane.request("PATCH", guard, {"spec": {"ingress": None}}, kind="application/merge-patch+json")
    eventually(lambda: namespace.plane.get(guard)["spec"].get("ingress"), what="the policy, put right")
    service = f"{namespace.core}/services/digits-learners"
    elsewhere = {"spec": {"selector": {"app": "other"}}}
    namespace.plane.request("PATCH", service, elsewhere, kind="application/merge-patch+json")
    eventually(lambda: "app" not in namespace.plane.get(service)["spec"]["selector"], what="the Service, put right")
    namespace.apply(manifest(learners={**learners, "count": 1}, policy=policy))
    namespace.await_pods(2)
    broken = {"data": {"tls.key": ""}}
    path = f"{namespace.core}/secrets/digits-learner-0-tls"
    namespace.plane.request("PATCH", path, broken, kind="application/merge-patch+json")
    before = namespace.uid("digits-learner-0")
    assert before
    namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-learner-0")
    namespace.await_another("digits-learner-0", before)
    coordinator.say(uid=uid, phase="Complete", reason="Completed", message="done")
    eventually(lambda: "Completed" in [reason for _, reason, _ in namespace.events()])
    eventually(lambda: not namespace.plane.get(f"{namespace.tasks}/digits"), what="the task is deleted in its time")


def test_every_right_is_used_and_no_other_is_missing(
    helm: str,
    plane: ControlPlane,
    namespace: Namespace,
    operator: Operator,
    coordinator: Coordinator,
    account: str,
) -> None:
    life(namespace, coordinator)
    asked = plane.asked_by(account)
    (role,) = [rendered for rendered in chart_rights(helm, "collective") if rendered["kind"] == "ClusterRole"]
    assert forbidden(asked) == []
    # A test before this one may have had a pod in the making for long.
    assert used(asked) | NOT_ASKED_FOR == rights_of(role["rules"])


def test_named_namespaces_need_no_right_on_the_cluster(
    helm: str, plane: ControlPlane, namespace: Namespace, coordinator: Coordinator, tmp_path: Path, operator: Operator
) -> None:
    operator.stop()  # it would serve this namespace, too
    elsewhere = "a-namespace-of-nobody"
    if not plane.get(f"/api/v1/namespaces/{elsewhere}"):
        plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": elsewhere}})
    account = install_rights(plane, chart_rights(helm, namespace.name, watchNamespaces=[namespace.name]))
    kubeconfig = plane.kubeconfig_of(account, tmp_path / "kubeconfig")
    cautious = Operator(plane, tmp_path, options=[f"--namespace={namespace.name}"], kubeconfig=kubeconfig)
    Namespace(plane, elsewhere).apply(manifest("ignored"))
    cautious.start()
    try:
        life(namespace, coordinator)
    finally:
        cautious.stop()
    asked = plane.asked_by(account)
    assert asked
    assert forbidden(asked) == []
    cluster_wide = [
        request["requestURI"] for request in asked if "objectRef" in request and "namespace" not in request["objectRef"]
    ]
    assert cluster_wide == []
    assert "status" not in Namespace(plane, elsewhere).task("ignored")
    assert "forbidden" not in cautious.log.read_text().lower()
    assert json.dumps(asked)  # nothing secret is in it: levels above Metadata are not written


def test_kueue_s_hold_is_taken_off_pods_that_will_not_run(
    helm: str, plane: ControlPlane, namespace: Namespace, tmp_path: Path, operator: Operator
) -> None:
    operator.stop()  # it would serve this namespace, too
    rights = chart_rights(helm, namespace.name, watchNamespaces=[namespace.name], kueue={"enabled": True})
    account = install_rights(plane, rights)
    kubeconfig = plane.kubeconfig_of(account, tmp_path / "kubeconfig")
    queueing = Operator(plane, tmp_path, options=[f"--namespace={namespace.name}"], kubeconfig=kubeconfig)

    queueing.start()
    try:
        namespace.apply(manifest(queueName="gpus"))
        hold(namespace)
        namespace.apply(manifest(queueName="gpus", suspend=True))
        eventually(lambda: namespace.condition("Suspended")["status"] == "True", what="that it stands still")
        namespace.apply(manifest(queueName="gpus"))
        hold(namespace)
        uid = namespace.uid("digits-learner-1")
        assert uid
        plane.request("DELETE", f"{namespace.core}/pods/digits-learner-1")
        namespace.await_another("digits-learner-1", uid)
        hold(namespace)
        for name in namespace.pods():
            namespace.run_pod(name)
        namespace.end_pod("digits-coordinator", phase="Succeeded", message='{"phase": "Complete"}')
        eventually(lambda: retriable(namespace) == "false", what="that no other pods will come")
        plane.request("DELETE", f"{namespace.tasks}/digits")
        eventually(lambda: not namespace.pods(), what="no pod of a task that is gone")
    finally:
        queueing.stop()
    asked = plane.asked_by(account)
    assert forbidden(asked) == []
    assert ("patch", "", "pods") in used(asked)


def test_the_right_to_take_it_off_may_be_given_while_the_operator_runs(
    helm: str, plane: ControlPlane, namespace: Namespace, tmp_path: Path, operator: Operator
) -> None:
    operator.stop()  # it would serve this namespace, too
    account = install_rights(plane, chart_rights(helm, namespace.name, watchNamespaces=[namespace.name]))
    kubeconfig = plane.kubeconfig_of(account, tmp_path / "kubeconfig")
    options = [f"--namespace={namespace.name}", "--resync-seconds=2"]
    queueing = Operator(plane, tmp_path, options=options, kubeconfig=kubeconfig)
    queueing.start()
    try:
        namespace.apply(manifest(queueName="gpus"))
        hold(namespace)
        namespace.apply(manifest(queueName="gpus", suspend=True))
        eventually(lambda: "see kueue.enabled of the chart" in queueing.log.read_text(), what="that it may not")
        rights = chart_rights(helm, namespace.name, watchNamespaces=[namespace.name], kueue={"enabled": True})
        install_rights(plane, rights)
        eventually(lambda: namespace.condition("Suspended")["status"] == "True", what="that it stands still")
    finally:
        queueing.stop()


def hold(namespace: Namespace) -> None:
    """Do to all pods what Kueue's webhook does."""
    for name in namespace.await_pods(3):
        path, body = f"{namespace.core}/pods/{name}", {"metadata": {"finalizers": ["kueue.x-k8s.io/managed"]}}
        namespace.plane.request("PATCH", path, body, kind="application/merge-patch+json")


def retriable(namespace: Namespace) -> str | None:
    annotations = namespace.pods()["digits-coordinator"]["metadata"].get("annotations", {})
    found: str | None = annotations.get("kueue.x-k8s.io/retriable-in-group")
    return found
