"""The operator is upgraded, rolled back, uninstalled and installed again while a task trains, and no round is lost."""

from __future__ import annotations

from pathlib import Path

from .kube import TASK, Namespace, run, wait_for
from .test_digits import OPERATOR, ROOT, completes_with_all_rounds, long_task

CHART = ROOT / "helm" / "collective-operator"
RELEASE = "collective"
WAIT = ("--wait", "--timeout=300s")


def level(system: Namespace) -> set[str]:
    """What the operators' pods are told to log."""
    pods = system.items("pods", OPERATOR)
    words = [word for pod in pods for word in pod["spec"]["containers"][0]["args"]]
    return {word.partition("=")[2] for word in words if word.startswith("--log-level=")}


def test_a_task_outlives_the_operator_in_every_way(lab: Namespace, system: Namespace, tmp_path: Path) -> None:
    def helm(command: str, *arguments: str) -> str:
        return run("helm", "--namespace", system.name, command, RELEASE, *arguments, seconds=330)

    def is_well() -> None:
        found = lab.get("ctask", "upgraded")
        assert found, "the task went with the operator"
        assert found["status"]["phase"] != "Failed", found["status"]
        left = lab.uids(f"{TASK}=upgraded")
        assert left.items() <= pods.items(), "pods were made anew"

    values = tmp_path / "values.yaml"
    values.write_text(run("helm", "--namespace", system.name, "get", "values", RELEASE, "-o", "yaml"))
    task = long_task("upgraded")
    task["spec"]["model"]["parameters"]["epochs"] = 60  # an upgrade takes a while
    lab.apply(task)
    wait_for("two rounds", lambda: lab.rounds_decided("upgraded") >= 2, seconds=180)
    pods = lab.uids(f"{TASK}=upgraded")
    helm("upgrade", str(CHART), f"--values={values}", "--set=logLevel=debug,grafana.dashboards.enabled=true", *WAIT)
    wait_for("new operators", lambda: level(system) == {"debug"}, seconds=180)
    is_well()
    helm("rollback", *WAIT)
    wait_for("the old operators", lambda: level(system) == {"info"}, seconds=180)
    is_well()
    helm("uninstall", *WAIT)
    wait_for("no operator", lambda: not system.items("pods", OPERATOR), seconds=180)
    is_well()
    helm("install", str(CHART), f"--values={values}", *WAIT)
    completes_with_all_rounds(lab, system, "upgraded")
