"""`collective list` and its like, on a real API server; the test is the kubelet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from collective_operator.cli import main

from .control_plane import eventually
from .playground import Coordinator, Manifest, Namespace, Operator, manifest
from .test_life import start

Collective = Callable[..., tuple[int, str, str]]

COORDINATOR = "digits-coordinator"


@pytest.fixture
def collective(namespace: Namespace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Collective:
    """Run a command as a person with this namespace in their context; give exit status, output and errors."""
    monkeypatch.setenv("KUBECONFIG", str(namespace.plane.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    def run(*arguments: str, here: bool = True) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([*arguments, *(("-n", namespace.name) if here else ())])
        output = capfd.readouterr()
        return code, output.out, output.err

    return run


def running(namespace: Namespace, coordinator: Coordinator) -> None:
    start(namespace, coordinator)
    latest = {"round": 7, "testScore": 0.9, "voteScore": 0.8, "proposer": "learner-1", "accepted": True}
    coordinator.say(phase="Running", round={"current": 7, "total": 20, "accepted": 5}, latest=latest)
    eventually(lambda: namespace.status()["round"]["current"] == 7)


def fail(namespace: Namespace, coordinator: Coordinator) -> None:
    """Let the coordinator give its verdict, and leave."""
    coordinator.say(phase="Failed", reason="BelowQuorum", message="learner-0 is missing")
    assert isinstance(coordinator.said, dict)
    namespace.end_pod(COORDINATOR, phase="Succeeded", message=json.dumps(coordinator.said))
    namespace.await_reason("Failed", "BelowQuorum")


def test_a_whole_life(
    namespace: Namespace, operator: Operator, coordinator: Coordinator, collective: Collective
) -> None:
    assert collective("list") == (0, "", f"no tasks in namespace {namespace.name}\n")
    running(namespace, coordinator)

    code, out, err = collective("list")
    head, row = (line.split() for line in out.splitlines())
    assert (code, err) == (0, "")
    assert head == ["NAME", "PHASE", "ROUND", "READY", "SCORE", "STRATEGY", "REASON", "AGE"]
    assert row[:7] == ["digits", "Running", "7/20", "2/2", "0.9", "Vote", "RoundsRunning"]
    assert "\x1b" not in out, "no colours where there is no terminal"
    everywhere = collective("list", "-A", here=False)[1].splitlines()
    assert everywhere[0].startswith("NAMESPACE") and any(line.startswith(namespace.name) for line in everywhere)
    assert collective("list", "-l", "team=none")[1] == ""
    listed = json.loads(collective("list", "-o", "json")[1])
    assert (listed["kind"], [task["metadata"]["name"] for task in listed["items"]]) == ("List", ["digits"])
    assert listed["items"][0]["kind"] == "CollectiveTask", "kubectl could apply it"

    out = collective("status", "digits")[1]
    for told in (
        "Running (RoundsRunning)",
        "7 of 20 decided, 5 accepted",
        "round 7: proposed by learner-1, accepted, test score 0.900, vote score 0.800",
        "2/2 ready",
        "Waits for:  the next round",
        "learner-1   Ready",
        "Progressing        True     RoundsRunning",
        "AllReady",
        "Dashboard:  https://grafana.example.com/d/collective-task?var-namespace=",
    ):
        assert told in out, told
    assert yaml.safe_load(collective("status", "digits", "-o", "yaml")[1])["status"]["phase"] == "Running"

    assert collective("suspend", "digits") == (0, "digits is suspended\n", "")
    assert collective("suspend", "digits")[1] == "digits is suspended already\n"
    namespace.await_reason("Suspended", "Suspended")
    assert "somebody to resume it; none of its pods is there; 7 of 20 rounds" in collective("status", "digits")[1]
    code, _, err = collective("logs", "digits", "1")
    assert (code, err) == (1, "Error: there is no pod digits-learner-1: the task is Suspended\n")
    assert collective("resume", "digits")[1] == "digits is resumed\n"
    assert collective("resume", "digits")[1] == "digits is not suspended\n"
    for name in namespace.await_pods(3):
        namespace.run_pod(name, address=coordinator.address if name == COORDINATOR else "127.0.0.1")
    namespace.await_reason("Progressing", "RoundsRunning")

    code, _, err = collective("retry", "digits")
    assert (code, err) == (1, "Error: digits is Running: only a failed task can be tried again\n")
    assert collective("abort", "digits", "-m", "wrong data") == (0, "digits is aborted\n", "")
    assert namespace.await_reason("Failed", "Aborted")["message"] == "wrong data"
    eventually(lambda: not namespace.pods(), what="no pod is left")
    code, _, err = collective("abort", "digits")
    assert (code, err) == (1, "Error: digits has ended already: Failed (Aborted)\n")
    assert "nothing: wrong data" in collective("status", "digits")[1]


def test_a_failed_task_is_tried_again(
    namespace: Namespace, operator: Operator, coordinator: Coordinator, collective: Collective
) -> None:
    running(namespace, coordinator)
    fail(namespace, coordinator)
    first = namespace.uid(COORDINATOR)
    completed = namespace.status()["completionTime"]
    assert collective("retry", "digits") == (0, "digits is tried again, after round 7\n", "")
    eventually(lambda: namespace.uid(COORDINATOR) not in (None, first), what="a coordinator for another try")
    coordinator.say(phase="Running", reason="")
    for name in namespace.await_pods(3):
        namespace.run_pod(name, address=coordinator.address if name == COORDINATOR else "127.0.0.1")
    namespace.await_reason("Progressing", "RoundsRunning")
    config = namespace.plane.get(f"{namespace.core}/configmaps/{COORDINATOR}")
    assert json.loads(config["data"]["coordinator.json"])["task"]["retry"] == completed
    assert config["metadata"]["annotations"]["collectivelearning.dev/coordinator-image"] == "operator:test"
    namespace.await_events("Retried")

    coordinator.say(phase="Running", round={"current": 8, "total": 20, "accepted": 5})
    eventually(lambda: namespace.status()["round"]["current"] == 8)
    fail(namespace, coordinator)
    claim = f"{namespace.core}/persistentvolumeclaims/{COORDINATOR}"
    namespace.plane.request("DELETE", claim)
    eventually(lambda: namespace.plane.get(claim) is None)
    code, _, err = collective("retry", "digits")
    assert code == 1 and "is gone (digits-coordinator), and its 8 rounds with it" in err
    assert collective("results", "digits")[2] == (
        "Error: there are no results: the volume claim digits-coordinator is not there\n"
    )


def test_what_is_watched(
    namespace: Namespace, operator: Operator, coordinator: Coordinator, collective: Collective
) -> None:
    running(namespace, coordinator)
    command = [sys.executable, "-m", "collective_operator", "watch", "digits", "-n", namespace.name]
    environment = {**os.environ, "KUBECONFIG": str(namespace.plane.kubeconfig)}
    with subprocess.Popen(
        [*command, "-o", "json", "--every", "0.3"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        begun = next(lines)
        assert begun == {
            "event": "begin", "name": f"{namespace.name}/digits", "rounds": 20, "learners": 2, "decided": 7
        }  # fmt: skip
        assert next(line for line in lines if line["event"] == "status")["round"]["current"] == 7
        namespace.plane.request("DELETE", f"{namespace.core}/pods/digits-learner-1")
        assert next(line for line in lines if line["event"] == "event" and line["reason"] == "Replaced")
        fail(namespace, coordinator)
        rest = list(lines)
        assert process.wait(20) == 1, "the task has failed"
    assert rest[-1]["result"]["message"] == "learner-0 is missing"
    assert "BelowQuorum" in [line["reason"] for line in rest if line["event"] == "event"]
    code, out, _ = collective("watch", "digits")
    assert code == 1
    assert out.splitlines()[-1].startswith("Failed (BelowQuorum): learner-0 is missing [7 rounds, 5 accepted")


def test_refused_and_unlooked_at(namespace: Namespace, collective: Collective) -> None:
    namespace.plane.request("POST", namespace.tasks, manifest(managedBy="kueue.x-k8s.io/multikueue"))
    assert "Waits for:  kueue.x-k8s.io/multikueue, which sees to it" in collective("status", "digits")[1]
    assert collective("list")[1].splitlines()[1].split()[1:4] == ["Pending", "-", "-"]
    code, _, err = collective("logs", "digits", "learner-7")
    assert code == 2 and "digits has no learner learner-7: there are learner-0 to learner-1" in err
    for command in ("status", "watch", "logs", "results", "plot", "suspend", "resume", "abort", "retry"):
        code, _, err = collective(command, "nothing")
        assert (code, err) == (1, 'Error: collectivetasks.collectivelearning.dev "nothing" not found\n'), command


def test_no_way_to_a_cluster(
    namespace: Namespace, collective: Collective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = collective("list", "--context", "moon")
    assert code == 1 and "no way to an API server" in err and "moon" in err
    code, _, err = collective("list", "--kubeconfig", str(tmp_path / "none"))
    assert (code, "is not there; name a kubeconfig" in err) == (1, True)
    config: Manifest = yaml.safe_load(namespace.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    closed = tmp_path / "closed"
    closed.write_text(yaml.safe_dump(config))
    code, _, err = collective("list", "--kubeconfig", str(closed))
    assert code == 1 and err.startswith("Error: list collectivetasks: ") and "127.0.0.1:1" in err


def test_kubectl_finds_it(namespace: Namespace, tmp_path: Path) -> None:
    """As pip installs it: kubectl looks for programs of these names."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, home in (
        ("kubectl-collective", "collective_operator.cli import main"),
        ("kubectl_complete-collective", "collective_operator.commands.completion import kubectl_complete as main"),
    ):
        script = folder / name
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom {home}\nsys.exit(main())\n")
        script.chmod(0o755)
    namespace.plane.request("POST", namespace.tasks, manifest("digits", suspend=True))
    environment = {
        **os.environ,
        "KUBECONFIG": str(namespace.plane.kubeconfig),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }

    def kubectl(*arguments: str) -> str:
        command = [str(namespace.plane.kubectl_binary), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    assert kubectl("collective", "list", "-n", namespace.name).splitlines()[1].startswith("digits")
    assert kubectl("collective", "status", "--help").startswith("Usage: kubectl collective status ")
    found = kubectl("__complete", "collective", "sus")
    assert found.splitlines() == ["suspend\tLet a task stand still.", ":4"]
    found = kubectl("__complete", "collective", "status", "-n", namespace.name, "")
    assert found.splitlines()[0].split("\t")[0] == "digits"
