"""Suspended and resumed, given up, cleaned up and deleted in time, on a real API server; the test is the kubelet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .control_plane import ApiError, eventually
from .playground import Coordinator, Manifest, Namespace, Operator, manifest
from .test_life import start

COORDINATOR = "digits-coordinator"
HOLD = "example.com/hold"
POLICIES = "/apis/admissionregistration.k8s.io/v1"
PHASES = ("Pending", "Starting", "Running", "Suspending", "Suspended", "Complete", "Failed")


def suspend(namespace: Namespace, wanted: bool = True) -> None:
    patch = {"spec": {"suspend": wanted}}
    namespace.plane.request("PATCH", f"{namespace.tasks}/digits", patch, kind="application/merge-patch+json")


def hold(namespace: Namespace, pod: str, *finalizers: str) -> None:
    """Keep a pod from going, as a node does whose kubelet takes its time; or let it go, with no finalizer."""
    patch = {"metadata": {"finalizers": list(finalizers)}}
    namespace.plane.request("PATCH", f"{namespace.core}/pods/{pod}", patch, kind="application/merge-patch+json")


def going(namespace: Namespace) -> set[str]:
    return {name for name, pod in namespace.pods().items() if "deletionTimestamp" in pod["metadata"]}


def running(namespace: Namespace, coordinator: Coordinator, **spec: Any) -> None:
    start(namespace, coordinator, **spec)
    coordinator.say(phase="Running", round={"current": 7, "total": 20, "accepted": 5})
    eventually(lambda: namespace.status()["round"]["current"] == 7)


def bring_up(namespace: Namespace, coordinator: Coordinator) -> None:
    for name in namespace.await_pods(3):
        namespace.run_pod(name, address=coordinator.address if name == COORDINATOR else "127.0.0.1")


def test_suspended_and_resumed(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    running(namespace, coordinator)
    claim = namespace.plane.get(f"{namespace.core}/persistentvolumeclaims/{COORDINATOR}")["metadata"]["uid"]
    for name in namespace.pods():
        hold(namespace, name, HOLD)
    suspend(namespace)
    eventually(lambda: "digits-coordinator: is being deleted" in namespace.condition("Suspended")["message"])
    assert namespace.condition("Suspended")["reason"] == "Suspending"
    assert going(namespace) == {COORDINATOR}, "learners stay as long as the coordinator is there"
    assert namespace.status()["phase"] == "Suspending"
    suspend(namespace, False)
    hold(namespace, COORDINATOR)
    eventually(lambda: going(namespace) == {"digits-learner-0", "digits-learner-1"}, what="learners go, all the same")
    assert namespace.condition("Suspended")["status"] == "False"
    suspend(namespace)
    hold(namespace, "digits-learner-0")
    eventually(lambda: len(namespace.pods()) == 1)
    assert namespace.condition("Suspended")["status"] == "False"
    hold(namespace, "digits-learner-1")
    suspended = namespace.await_reason("Suspended", "Suspended")
    assert (suspended["status"], namespace.pods()) == ("True", {})
    assert suspended["observedGeneration"] == namespace.task()["metadata"]["generation"]
    namespace.plane.kubectl("-n", namespace.name, "wait", "--for=condition=Suspended", "ctask/digits", "--timeout=50s")
    printed = namespace.plane.kubectl("-n", namespace.name, "get", "ctask").stdout.splitlines()[1].split()
    assert printed[:4] == ["digits", "Suspended", "7/20", "0/2"]
    assert set(namespace.all_children()) == {
        "services/digits-learners",
        "configmaps/digits-coordinator",
        "persistentvolumeclaims/digits-coordinator",
        *(f"networkpolicies/digits-{name}" for name in ("learners", "coordinator")),
        *(f"secrets/digits-{name}" for name in ("ca", "learner-0-tls", "learner-1-tls", "coordinator-tls")),
    }
    larger = {"spec": {"coordinator": {"resources": {"limits": {"memory": "3Gi"}}}}}
    namespace.plane.request("PATCH", f"{namespace.tasks}/digits", larger, kind="application/merge-patch+json")

    suspend(namespace, False)
    bring_up(namespace, coordinator)
    eventually(lambda: namespace.status()["phase"] == "Running")
    status = namespace.status()
    assert (status["round"]["current"], status["coordinator"]["attempts"]) == (7, 0)
    assert namespace.pods()[COORDINATOR]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "3Gi"}
    again = namespace.plane.get(f"{namespace.core}/persistentvolumeclaims/{COORDINATOR}")["metadata"]["uid"]
    assert again == claim, "the same round, from the same volume"
    told = namespace.await_events("Suspending", "Suspended", "Resumed")
    assert {reason: told[reason] for reason in ("Suspending", "Suspended", "Resumed", "Replaced")} == {
        "Suspending": 1,
        "Suspended": 1,
        "Resumed": 1,
        "Replaced": 0,
    }


def test_created_suspended_as_kueue_does(namespace: Namespace, operator: Operator) -> None:
    begin = namespace.plane.audited()
    namespace.apply(manifest(suspend=True))
    namespace.await_reason("Suspended", "Suspended")
    assert namespace.condition("Accepted")["status"] == "True"
    assert (namespace.status()["phase"], namespace.all_children()) == ("Suspended", [])
    eventually(lambda: len(namespace.events()) == 2)
    asked = namespace.plane.requests_of("collective-operator (", begin=begin, namespace=namespace.name)
    assert not [request for request in asked if request.startswith("create") and request != "create events"]
    assert asked.count("update collectivetasks") <= 2
    suspend(namespace, False)
    namespace.await_pods(3)
    assert namespace.await_reason("Suspended", "Resumed")["status"] == "False"


def test_a_killed_operator_goes_on_with_suspending(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)
    hold(namespace, COORDINATOR, HOLD)
    suspend(namespace)
    namespace.await_reason("Suspended", "Suspending")
    operator.kill()
    suspend(namespace, False)
    hold(namespace, COORDINATOR)
    learners = {name: namespace.uid(name) for name in ("digits-learner-0", "digits-learner-1")}
    operator.start()
    for name, uid in learners.items():
        namespace.await_another(name, str(uid))
    namespace.await_reason("Suspended", "Resumed")
    assert namespace.status()["round"]["current"] == 7


def verdict(namespace: Namespace, uid: str, **members: Any) -> None:
    said: Manifest = {"version": 1, "uid": uid, "phase": "Complete", "reason": "RoundsCompleted", "message": "done"}
    namespace.end_pod(COORDINATOR, phase="Succeeded", message=json.dumps({**said, **members}))


def test_no_pod_stays_where_none_is_wanted(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    uid = start(namespace, coordinator, policy={"cleanPods": "All"})
    coordinator.say(phase="Running")
    eventually(lambda: namespace.status()["phase"] == "Running")
    verdict(namespace, uid)
    eventually(lambda: namespace.pods() == {})
    complete = namespace.condition("Complete")
    assert (complete["status"], complete["reason"]) == ("True", "RoundsCompleted"), "kept before its pod went"


def test_learners_stay_where_all_is_to_stay(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    uid = start(namespace, coordinator, policy={"cleanPods": "None"})
    before = {name: namespace.uid(name) for name in namespace.pods()}
    verdict(namespace, uid)
    eventually(lambda: namespace.status()["phase"] == "Complete")
    patch = {"spec": {"policy": {"cleanPods": "Running"}}}
    assert {name: namespace.uid(name) for name in namespace.pods()} == before
    namespace.plane.request("PATCH", f"{namespace.tasks}/digits", patch, kind="application/merge-patch+json")
    eventually(lambda: set(namespace.pods()) == {COORDINATOR})


def test_a_task_is_deleted_in_its_time_with_all_that_is_its(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    uid = start(namespace, coordinator, policy={"ttlSecondsAfterFinished": 3600})
    verdict(namespace, uid)
    eventually(lambda: namespace.status()["phase"] == "Complete")
    operator.kill()
    patch = {"spec": {"policy": {"ttlSecondsAfterFinished": 1}}}
    namespace.plane.request("PATCH", f"{namespace.tasks}/digits", patch, kind="application/merge-patch+json")
    operator.start()
    eventually(lambda: namespace.plane.get(f"{namespace.tasks}/digits") is None)
    eventually(lambda: namespace.all_children() == [], timeout=60)
    namespace.await_events("Expired")
    expired = [(kind, message) for kind, reason, message in namespace.events() if reason == "Expired"]
    assert expired == [("Normal", "the task ended 1 s ago and is deleted")]


def test_a_deleted_task_that_somebody_keeps_holds_nothing(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator, policy={"cleanPods": "None"})
    keep = {"metadata": {"finalizers": [HOLD]}}
    namespace.plane.request("PATCH", f"{namespace.tasks}/digits", keep, kind="application/merge-patch+json")
    namespace.plane.request("DELETE", f"{namespace.tasks}/digits")
    eventually(lambda: namespace.pods() == {}, what="no pod")
    failed = namespace.condition("Failed")
    assert (failed["reason"], failed["message"]) == ("Aborted", f"it was deleted, and is kept by its finalizers {HOLD}")
    assert namespace.status()["round"]["current"] == 7
    let_go = {"metadata": {"finalizers": None}}
    namespace.plane.request("PATCH", f"{namespace.tasks}/digits", let_go, kind="application/merge-patch+json")
    eventually(lambda: namespace.all_children() == [], timeout=60)


def test_a_learner_that_crashes_too_often_is_given_up_and_then_the_task(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    start(namespace, coordinator, policy={"minLearners": 1, "backoff": {"limit": 1}})
    coordinator.say(phase="Running")
    eventually(lambda: namespace.status()["phase"] == "Running")
    namespace.stick_pod("digits-learner-1", "CrashLoopBackOff", restarts=2, code=3)
    told = "digits-learner-1: given up after crash 2 in a row; last: CrashLoopBackOff, Error, exit code 3"
    eventually(lambda: set(namespace.pods()) == {"digits-learner-0", COORDINATOR}, what="nothing is held for it")
    # The status is written once it is so.
    learner = eventually(lambda: found if (found := namespace.status()["learnerStatuses"][1]).get("message") else None)
    assert (learner["state"], learner["message"]) == ("BackoffLimitExceeded", told)
    assert namespace.status()["phase"] == "Running"
    eventually(lambda: ("Warning", "BackoffLimitExceeded", told) in namespace.events())
    uid = namespace.uid("digits-learner-0")
    namespace.end_pod("digits-learner-0", phase="Failed", code=1)
    eventually(lambda: namespace.status()["learnerStatuses"][0].get("failures", {}).get("count") == 1)
    namespace.await_another("digits-learner-0", str(uid))
    namespace.end_pod("digits-learner-0", phase="Failed", code=1)
    eventually(lambda: namespace.status()["phase"] == "Failed")
    failed = namespace.condition("Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert "digits-learner-0: given up after crash 2 in a row; last: Error, exit code 1" in failed["message"]
    assert told in failed["message"]


def test_a_lost_volume_is_the_end(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    running(namespace, coordinator)
    namespace.plane.request("DELETE", f"{namespace.core}/persistentvolumeclaims/{COORDINATOR}")
    namespace.plane.request("DELETE", f"{namespace.core}/pods/{COORDINATOR}")
    eventually(lambda: namespace.status()["phase"] == "Failed")
    failed = namespace.condition("Failed")
    assert failed["reason"] == "VolumeLost"
    assert failed["message"].endswith("and with it all that was decided up to round 7")
    eventually(lambda: namespace.pods() == {}, what="nothing holds a node")


def test_children_that_somebody_removes_come_back(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)
    for child in ("services/digits-learners", f"configmaps/{COORDINATOR}"):
        namespace.plane.request("DELETE", f"{namespace.core}/{child}")
        eventually(lambda child=child: namespace.plane.get(f"{namespace.core}/{child}"), what=child)
    assert namespace.status()["phase"] == "Running"


@contextmanager
def no_pod_may_go(namespace: Namespace) -> Iterator[None]:
    """Have a policy deny that pods of the namespace are deleted, as an administrator's may."""
    name = f"stay-{namespace.name}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["pods"]}
    policy: Manifest = {
        "kind": "ValidatingAdmissionPolicy",
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "pods stay here"}],
        },
    }
    mine = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}}
    binding: Manifest = {
        "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": mine},
    }
    both = (
        (f"{POLICIES}/validatingadmissionpolicies", policy),
        (f"{POLICIES}/validatingadmissionpolicybindings", binding),
    )
    for path, made in both:
        namespace.plane.request("POST", path, {**made, "metadata": {"name": name}})
    try:
        yield
    finally:
        for path, _ in reversed(both):
            namespace.plane.request("DELETE", f"{path}/{name}")


def test_pods_that_a_policy_keeps_are_told_of_and_go_when_it_is_gone(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    running(namespace, coordinator)

    def is_denied() -> bool:
        try:
            namespace.plane.request("DELETE", f"{namespace.core}/pods/{COORDINATOR}?dryRun=All")
        except ApiError as error:
            return "pods stay here" in str(error)
        return False

    def phases() -> set[str]:
        mine = f'collective_task_phase{{name="digits",namespace="{namespace.name}"'
        told = [line for line in operator.read("/metrics").splitlines() if line.startswith(mine)]
        return {phase for line in told if line.endswith(" 1.0") for phase in PHASES if f'phase="{phase}"' in line}

    eventually(lambda: phases() == {"Running"}, what="metrics of a task that runs")
    with no_pod_may_go(namespace):
        eventually(is_denied, what="the policy")
        suspend(namespace)
        eventually(lambda: "pods stay here" in namespace.condition("Suspended")["message"])
        assert (namespace.status()["phase"], len(namespace.pods())) == ("Suspending", 3)
        eventually(lambda: phases() == {"Suspending"}, what="metrics")
    eventually(lambda: namespace.status()["phase"] == "Suspended", timeout=90)
    assert namespace.pods() == {}
