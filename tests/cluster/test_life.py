"""A task's life, seen from outside: the operator is a process, the test is the kubelet and the coordinator."""

from __future__ import annotations

import json
from typing import Any

from .control_plane import eventually
from .playground import Coordinator, Namespace, Operator, manifest

CONDITIONS = {"Accepted", "LearnersReady", "CoordinatorReady", "Progressing", "Suspended", "Complete", "Failed"}


def start(namespace: Namespace, coordinator: Coordinator, name: str = "digits", **spec: Any) -> str:
    """Apply a task and bring its pods up; return its uid."""
    task = manifest(name, **spec)
    namespace.apply(task)
    learners = task["spec"]["learners"]
    count = learners.get("count") or len(learners["sites"])

    def pods() -> list[str] | None:
        mine = [pod for pod in namespace.pods() if pod.startswith(f"{name}-")]
        return mine if len(mine) == count + 1 else None  # they are made at the same time, in no order

    mine = eventually(pods, what=f"the pods of {name}")
    uid = str(namespace.task(name)["metadata"]["uid"])
    coordinator.say(uid=uid)
    # The coordinator last: who asks it has been told that the learners are ready.
    for pod in sorted(mine, key=lambda pod: pod.endswith("coordinator")):
        namespace.run_pod(pod, address=coordinator.address if pod.endswith("coordinator") else "127.0.0.1")
    return uid


def test_from_apply_to_complete(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    namespace.apply(manifest())
    pods = namespace.await_pods(3)
    assert set(pods) == {"digits-learner-0", "digits-learner-1", "digits-coordinator"}
    assert set(namespace.all_children()) == {
        *(f"pods/{name}" for name in pods),
        "services/digits-learners",
        "configmaps/digits-coordinator",
        "persistentvolumeclaims/digits-coordinator",
        "networkpolicies/digits-learners",
        "networkpolicies/digits-coordinator",
        "secrets/digits-ca",
        *(f"secrets/{name}-tls" for name in pods),
    }
    task = namespace.task()
    assert "finalizers" not in task["metadata"]
    assert set(task["metadata"].get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    assert {found["type"] for found in task["status"]["conditions"]} == CONDITIONS
    assert namespace.status()["phase"] == "Pending"
    assert namespace.condition("Accepted")["status"] == "True"
    link = f"https://grafana.example.com/d/collective-task?var-namespace={namespace.name}&var-task=digits"
    assert namespace.status()["dashboard"] == link
    config_map = namespace.plane.get(f"{namespace.core}/configmaps/digits-coordinator")
    config = json.loads(config_map["data"]["coordinator.json"])
    assert config["task"] == {"namespace": namespace.name, "name": "digits", "uid": task["metadata"]["uid"]}
    assert [learner["address"] for learner in config["learners"]] == [
        f"digits-learner-{index}.digits-learners.{namespace.name}.svc:9995" for index in range(2)
    ]

    coordinator.say(uid=task["metadata"]["uid"])
    namespace.run_pod("digits-coordinator", address=coordinator.address)
    namespace.run_pod("digits-learner-0")
    eventually(lambda: namespace.status()["phase"] == "Starting")
    eventually(lambda: namespace.condition("Progressing")["reason"] == "WaitingForLearners")
    namespace.run_pod("digits-learner-1")
    eventually(lambda: namespace.condition("LearnersReady")["reason"] == "AllReady")
    coordinator.say(
        phase="Running",
        round={"current": 7, "total": 20, "accepted": 5},
        latest={"round": 7, "testScore": 0.941234, "voteScore": 0.93, "proposer": "learner-0", "accepted": True},
        learners=[
            {"name": "learner-0", "state": "Training", "lastScore": 0.941234, "message": ""},
            {"name": "learner-1", "state": "Testing", "lastScore": None, "message": ""},
        ],
    )
    eventually(lambda: namespace.status()["phase"] == "Running")
    status = eventually(lambda: namespace.status() if namespace.status()["round"]["current"] == 7 else None)
    assert status["latest"]["proposer"] == "learner-0"
    assert status["score"] == 0.9412
    assert [learner["state"] for learner in status["learnerStatuses"]] == ["Ready", "Ready"]
    assert status["learnerStatuses"][0]["lastScore"] == 0.9412

    row = namespace.plane.kubectl("-n", namespace.name, "get", "ctask").stdout.splitlines()
    assert row[0].split() == ["NAME", "PHASE", "ROUND", "READY", "SCORE", "AGE"]
    assert row[1].split()[:5] == ["digits", "Running", "7/20", "2/2", "0.9412"]
    wide = namespace.plane.kubectl("-n", namespace.name, "get", "ctask", "-o", "wide").stdout.splitlines()
    assert wide[0].split() == [
        "NAME",
        "PHASE",
        "ROUND",
        "READY",
        "SCORE",
        "AGE",
        "STRATEGY",
        "ACCEPTED",
        "PROPOSER",
        "REASON",
    ]
    assert wide[1].split()[6:] == ["Vote", "5", "learner-0", "RoundsRunning"]

    there = [name for name, pod in namespace.pods().items() if "deletionTimestamp" not in pod["metadata"]]
    assert sorted(there) == sorted(pods)
    coordinator.say(reason="UploadingResult", message="Bringing the result to s3://models/digits")
    eventually(lambda: namespace.condition("Progressing")["reason"] == "UploadingResult")
    assert namespace.condition("LearnersReady")["reason"] == "Finished"
    there = [name for name, pod in namespace.pods().items() if "deletionTimestamp" not in pod["metadata"]]
    assert there == ["digits-coordinator"], "a slow store holds no GPU"

    verdict = {
        "version": 1,
        "uid": task["metadata"]["uid"],
        "phase": "Complete",
        "reason": "Completed",
        "message": "all 20 rounds are decided",
        "round": {"current": 20, "total": 20, "accepted": 14},
        "latest": {"round": 20, "testScore": 0.9, "voteScore": 0.9, "proposer": "learner-1", "accepted": False},
        "result": {
            "model": "model.safetensors",
            "formats": [
                {"name": "safetensors", "file": "model.safetensors"},
                {"name": "onnx", "message": "learner-0: it takes a list"},
            ],
            "testScore": 0.95,
            "voteScore": 0.9,
            "proposer": "learner-1",
            "rounds": 20,
            "accepted": 14,
            "digest": "blake3:00",
        },
    }
    namespace.end_pod("digits-coordinator", phase="Succeeded", message=json.dumps(verdict))
    status = eventually(lambda: namespace.status() if namespace.status()["phase"] == "Complete" else None)
    assert namespace.condition("Complete")["reason"] == "Completed"
    assert status["round"] == {**status["round"], "current": 20, "accepted": 14, "summary": "20/20"}
    assert status["score"] == 0.95
    assert status["result"]["model"] == "model.safetensors"
    assert status["result"]["formats"] == verdict["result"]["formats"]
    assert status["completionTime"]
    eventually(lambda: set(namespace.pods()) == {"digits-coordinator"}, what="only the coordinator stays")
    once = ("Accepted", "AllReady", "Serving", "RoundsRunning", "Completed")
    told = namespace.await_events(*once)
    assert all(told[reason] == 1 for reason in once), told


def test_a_failed_verdict_is_told(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    uid = start(namespace, coordinator)
    coordinator.say(uid=uid, phase="Failed", reason="BelowQuorum", message="learner-1 did not come back")
    eventually(lambda: namespace.status()["phase"] == "Failed")
    failed = namespace.condition("Failed")
    assert (failed["reason"], failed["message"]) == ("BelowQuorum", "learner-1 did not come back")
    eventually(lambda: set(namespace.pods()) == {"digits-coordinator"})
    told = ("Warning", "BelowQuorum", "learner-1 did not come back")
    eventually(lambda: told in namespace.events(), what="the event")


def test_what_only_the_operator_can_know(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(manifest(dataLoader={"name": "DIGITS", "parameters": {"location": "here"}}))
    accepted = eventually(lambda: namespace.condition("Accepted"))
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "spec.dataLoader.parameters.location" in accepted["message"]
    assert namespace.status()["phase"] == "Failed"
    assert namespace.all_children() == []


def test_messages_name_the_pod_and_kubernetes_reason(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    start(namespace, coordinator)
    namespace.stick_pod("digits-learner-1", "ImagePullBackOff", 'Back-off pulling image "nope"')
    found = namespace.await_reason("LearnersReady", "ImageUnavailable")
    assert found["message"] == '1 of 2 ready; digits-learner-1: ImagePullBackOff: Back-off pulling image "nope"'
    assert namespace.status()["learnerStatuses"][1]["state"] == "ImageUnavailable"
    assert namespace.status()["reason"] == "ImageUnavailable"
    namespace.stick_pod("digits-learner-1", "CrashLoopBackOff", "back-off 40s", restarts=3, code=137)
    found = namespace.await_reason("LearnersReady", "Crashing")
    assert "digits-learner-1: CrashLoopBackOff, Error, exit code 137" in found["message"]
    assert namespace.status()["learnerStatuses"][1]["restarts"] == 3


def test_a_quota_is_told(namespace: Namespace, operator: Operator) -> None:
    spec = {"hard": {"count/services": "0"}}
    path, quota = f"{namespace.core}/resourcequotas", {"metadata": {"name": "few"}, "spec": spec}
    namespace.plane.request("POST", path, quota)
    # No controller counts here, so the test says what one would.
    status = {**spec, "used": {"count/services": "0"}}
    namespace.plane.request("PUT", f"{path}/few/status", {**quota, "status": status})
    namespace.apply(manifest())
    found = namespace.await_reason("CoordinatorReady", "CreateRefused")
    assert "exceeded quota" in found["message"]


def test_modules_that_are_missing_and_then_broken(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    namespace.apply(manifest(learners={"count": 2, "codeFrom": {"configMapRef": {"name": "my-models"}}}))
    found = namespace.await_reason("LearnersReady", "CodeMissing")
    assert "there is no ConfigMap my-models, which spec.learners.codeFrom names" in found["message"]
    assert set(namespace.await_pods(1)) == {"digits-coordinator"}
    namespace.config_map("my-models", {"mine.py": "import nothing_of_that_name"})
    namespace.await_pods(3)
    said = "Error: --import mine failed: ModuleNotFoundError: No module named 'nothing_of_that_name'\n  File"
    namespace.end_pod("digits-learner-1", phase="Running", message=said, code=78)
    eventually(lambda: namespace.status()["phase"] == "Failed")
    failed = namespace.condition("Failed")
    assert failed["reason"] == "ImportFailed"
    assert failed["message"].startswith("digits-learner-1: --import mine failed: ModuleNotFoundError")
    eventually(lambda: namespace.pods() == {}, what="nothing holds a node")


def test_deadlines_end_a_task(namespace: Namespace, operator: Operator, coordinator: Coordinator) -> None:
    namespace.apply(manifest("stuck", policy={"preRunningDeadlineSeconds": 2}))
    namespace.apply(manifest("long", policy={"activeDeadlineSeconds": 3}))
    for name, reason in (("stuck", "PreRunningDeadlineExceeded"), ("long", "ActiveDeadlineExceeded")):
        eventually(lambda name=name: namespace.status(name)["phase"] == "Failed")
        assert namespace.condition("Failed", name)["reason"] == reason
    assert "0 of 2 ready" in namespace.condition("Failed", "stuck")["message"]
    eventually(lambda: namespace.pods() == {}, what="nothing holds a node")


def test_learners_join_and_leave_while_it_runs(
    namespace: Namespace, operator: Operator, coordinator: Coordinator
) -> None:
    def learners(count: int) -> list[dict[str, Any]]:
        return [{"name": f"learner-{index}", "state": "Ready"} for index in range(count)]

    def told() -> list[str]:
        config_map = namespace.plane.get(f"{namespace.core}/configmaps/digits-coordinator")
        return [learner["name"] for learner in json.loads(config_map["data"]["coordinator.json"])["learners"]]

    start(namespace, coordinator, learners={"count": 2, "location": "x{index}"})
    coordinator.say(phase="Running", learners=learners(2))
    eventually(lambda: namespace.status()["phase"] == "Running")
    uids = {name: namespace.uid(name) for name in namespace.pods()}

    namespace.apply(manifest(learners={"count": 4, "location": "x{index}"}))
    namespace.await_pods(5)
    eventually(lambda: len(told()) == 4)
    for index in (2, 3):
        namespace.run_pod(f"digits-learner-{index}")
    coordinator.say(learners=learners(4))
    eventually(lambda: namespace.status()["learners"]["summary"] == "4/4")

    namespace.apply(manifest(learners={"count": 1, "location": "x{index}"}))
    eventually(lambda: told() == ["learner-0"])
    assert len(namespace.pods()) == 5, "the coordinator still works with them"
    coordinator.say(learners=learners(1))
    namespace.await_pods(2)
    eventually(lambda: namespace.status()["learners"]["summary"] == "1/1")
    left = {name: namespace.uid(name) for name in namespace.pods()}
    assert left.items() <= uids.items(), "those that stay are not touched"
    # Events are told once the status is written.
    eventually(lambda: {"Reconfigured", "Removed"} <= {reason for _, reason, _ in namespace.events()})
    assert namespace.status()["phase"] == "Running"


def test_another_controller_s_task_is_left_alone(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(manifest("theirs", managedBy="kueue.x-k8s.io/multikueue"))
    namespace.apply(manifest("ours"))
    namespace.await_pods(3)
    eventually(lambda: namespace.status("ours").get("phase"))
    assert not [child for child in namespace.all_children() if "theirs" in child]
    assert namespace.status("theirs") == {}
