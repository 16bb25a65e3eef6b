"""From `kubectl apply` to a trained model, with every process in a pod; then the same with pods lost half way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kube import TASK, Namespace, wait_for

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits.yaml"
OPERATOR = "app.kubernetes.io/component=operator"
ROUNDS = 30
ENDLESS = 100_000

READ_VOLUME = """
import json, pathlib
from blake3 import blake3
state = pathlib.Path("/state")
print(json.dumps({
    "rounds": [json.loads(line) for line in (state / "rounds.jsonl").read_text().splitlines()],
    "files": {file.name: "blake3:" + blake3(file.read_bytes()).hexdigest()
              for file in state.glob("model.*")},
}))
"""


def long_task(name: str) -> dict[str, Any]:
    """The example, with few learners that train long enough for a pod to be lost half way."""
    task: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    task["metadata"] = {"name": name}
    task["spec"]["rounds"] = ROUNDS
    task["spec"]["learners"]["count"] = 3
    task["spec"]["model"].setdefault("parameters", {})["epochs"] = 20
    return task


def volume_of(lab: Namespace, system: Namespace, task: str) -> dict[str, Any]:
    """What a task left on its coordinator's volume, read by a pod that mounts it."""
    operator, *_ = system.items("pods", OPERATOR)
    name = f"{task}-reader"
    lab.apply({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "reader",
                "image": operator["spec"]["containers"][0]["image"],
                "command": ["python", "-c", READ_VOLUME],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "state", "mountPath": "/state", "readOnly": True}],
            }],
            "volumes": [{"name": "state", "persistentVolumeClaim": {"claimName": f"{task}-coordinator"}}],
        },
    })  # fmt: skip

    def ended() -> str | None:
        pod = lab.get("pod", name)
        assert pod is not None
        phase: str = pod["status"]["phase"]
        return phase if phase in {"Succeeded", "Failed"} else None

    assert wait_for(f"{name} to end", ended, seconds=180) == "Succeeded", lab.kubectl("logs", name)
    found: dict[str, Any] = json.loads(lab.kubectl("logs", name))
    lab.kubectl("delete", "pod", name, "--wait=true", seconds=180)
    return found


def gone(lab: Namespace, task: str) -> None:
    """Delete the task as people do, and see that nothing is left of it."""
    lab.kubectl("delete", "ctask", task, "--timeout=180s", seconds=210)
    wait_for(f"nothing left of {task}", lambda: not lab.left_of(task), seconds=240)


def all_rounds_stand_once(left: dict[str, Any], total: int) -> None:
    assert [line["round"] for line in left["rounds"]] == list(range(1, total + 1))


def completes_with_all_rounds(lab: Namespace, system: Namespace, name: str) -> None:
    """See a long task to its end: no round is missing or twice, the model is the one it tells of, nothing is left."""
    status = lab.finished(name, seconds=600)["status"]
    assert (status["phase"], status["round"]["current"]) == ("Complete", ROUNDS), status
    left = volume_of(lab, system, name)
    all_rounds_stand_once(left, ROUNDS)
    assert left["files"] == {"model.safetensors": status["result"]["digest"]}
    gone(lab, name)


def leader(system: Namespace) -> str:
    """Name the operator's pod that acts."""
    return system.kubectl("get", "lease", "-o", "jsonpath={.items[0].spec.holderIdentity}").partition("_")[0]


def operator_metrics(system: Namespace) -> str:
    return system.http(leader(system), "/metrics", port=8081)


def test_one_file_becomes_a_trained_model(lab: Namespace, system: Namespace) -> None:
    lab.kubectl("apply", "-f", str(EXAMPLE))
    task = lab.finished("digits", seconds=600)
    status = task["status"]
    assert (status["phase"], status["round"]["current"]) == ("Complete", 20), status

    header, row = lab.kubectl("get", "ctask", "digits").splitlines()
    printed = dict(zip(header.split(), row.split(), strict=True))
    assert (printed["PHASE"], printed["ROUND"]) == ("Complete", "20/20")
    assert float(printed["SCORE"]) >= 0.90

    left = volume_of(lab, system, "digits")
    all_rounds_stand_once(left, 20)
    assert left["files"] == {"model.safetensors": status["result"]["digest"]}

    def exported() -> bool:
        metrics = operator_metrics(system)
        for series in (
            r'collective_task_info{[^}]*name="digits"[^}]*} 1',
            r'collective_task_round{[^}]*name="digits"[^}]*} 20',
            r'collective_task_condition{[^}]*name="digits"[^}]*type="Complete"[^}]*} 1',
            r"collective_reconcile_total{[^}]*} [1-9]",
        ):
            assert re.search(series, metrics), f"{series} is not in\n{metrics}"
        return True

    wait_for("the series of a task that is complete", exported, seconds=60)  # it hears of its own writes later

    gone(lab, "digits")
    wait_for("no series of a deleted task", lambda: 'name="digits"' not in operator_metrics(system), seconds=90)


def test_a_lost_learner_comes_back(lab: Namespace, system: Namespace) -> None:
    lab.apply(long_task("lost-learner"))
    wait_for("three rounds", lambda: lab.rounds_decided("lost-learner") >= 3, seconds=180)

    metrics = lab.http("lost-learner-coordinator", "/metrics")
    assert re.search(r"collective_rounds_total{[^}]*} [1-9]", metrics), metrics
    assert re.search(r'collective_score{[^}]*learner="learner-1"[^}]*} 0\.', metrics), metrics

    learner = lab.uids(f"{TASK}=lost-learner")["lost-learner-learner-1"]
    assert lab.rounds_decided("lost-learner") < ROUNDS, "the task was over before its learner was lost"
    lab.kubectl("delete", "pod", "lost-learner-learner-1", "--wait=false")
    lab.replaced("lost-learner-learner-1", learner, seconds=300)

    completes_with_all_rounds(lab, system, "lost-learner")


@pytest.mark.parametrize("grace", ["30", "0"], ids=["asked", "killed"])
def test_a_lost_coordinator_continues(lab: Namespace, system: Namespace, grace: str) -> None:
    name = f"lost-coordinator-{grace}"
    lab.apply(long_task(name))
    wait_for("three rounds", lambda: lab.rounds_decided(name) >= 3, seconds=180)
    coordinator = lab.uids(f"{TASK}={name},app.kubernetes.io/component=coordinator")[f"{name}-coordinator"]
    learners = lab.uids(f"{TASK}={name},app.kubernetes.io/component=learner")
    assert lab.rounds_decided(name) < ROUNDS, "the task was over before its coordinator was lost"
    lab.kubectl("delete", "pod", f"{name}-coordinator", f"--grace-period={grace}", "--wait=false")
    lab.replaced(f"{name}-coordinator", coordinator, seconds=300)
    now = lab.uids(f"{TASK}={name},app.kubernetes.io/component=learner")
    assert now.items() <= learners.items(), "healthy learners were touched"

    completes_with_all_rounds(lab, system, name)


def test_an_operator_that_is_replaced_touches_no_pod(lab: Namespace, system: Namespace) -> None:
    lab.apply(long_task("new-operator"))
    wait_for("three rounds", lambda: lab.rounds_decided("new-operator") >= 3, seconds=180)
    before = lab.uids(f"{TASK}=new-operator")
    old = leader(system)
    assert len(system.uids(OPERATOR)) == 2
    assert lab.rounds_decided("new-operator") < ROUNDS, "the task was over before its operator was replaced"
    system.kubectl("delete", "pod", old, "--grace-period=0", "--force", "--wait=false")
    wait_for("another operator that leads", lambda: leader(system) not in ("", old), seconds=180)
    system.kubectl("rollout", "status", "deployment", "--timeout=240s", seconds=270)
    assert lab.uids(f"{TASK}=new-operator").items() <= before.items(), "healthy pods were touched"

    completes_with_all_rounds(lab, system, "new-operator")


def test_pods_hold_no_key_and_cannot_write_their_image(lab: Namespace, system: Namespace) -> None:
    task = long_task("sealed")
    task["spec"]["rounds"] = ENDLESS
    lab.apply(task)
    wait_for("a round", lambda: lab.rounds_decided("sealed") >= 1, seconds=180)
    look = "import os; print(os.getuid(), os.path.exists('/var/run/secrets'), os.statvfs('/').f_flag & os.ST_RDONLY)"
    for pod in ("sealed-learner-0", "sealed-coordinator"):
        assert lab.kubectl("exec", pod, "--", "python", "-c", look).split() == ["10001", "False", "1"]
    gone(lab, "sealed")
