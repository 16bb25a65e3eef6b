"""The commands of the pages on a real API server: what a reader types is answered, in the order of the page.

A task runs, and a played kubelet has logs. What reads is run at the same time; what changes something, one by one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from collective_operator.cli import main

from ..documents.pages import ROOT, Command, blocks
from ..documents.shell import IN_A_CLUSTER, not_run, of
from .control_plane import ControlPlane, eventually
from .kubelet import Kubelet
from .playground import Coordinator, Namespace, Operator
from .rights import HOW_TO, SYSTEM, find_helm

Shell = Callable[[str], subprocess.CompletedProcess[str]]

RESTORE = "digits-suspended.yaml"
CHANGED = {r"\bTASK\b": "digits", r"--timeout=1h": "--timeout=1s", r" --watch\b": ""}
"""What stands for something else, and what would go on for ever."""
ANSWERS = {
    "--timeout=1s": r".*timed out waiting for the condition.*",
    "podMonitor.enabled": r'.*no matches for kind "PodMonitor".*',  # the Prometheus Operator's, which is not here
    "| grep ": r"(No resources found.*)?",  # finds nothing where nothing is wrong
}
"""Commands that fail here, by a part of them, with what they say then."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a checkout has, and the files that the pages' commands name."""
    for name in ("examples", "helm", "crds"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my-code").mkdir()
    (tmp_path / "my-code" / "my_model.py").write_text("")
    tutorial = "examples/tutorials/grpc_tutorial.md"
    shutil.copy(ROOT / "examples" / "tutorials" / "grpc_tasks.py", tmp_path)
    (task,) = [block.text for block in blocks(tutorial) if block.language == "yaml"]
    (tmp_path / "task.yaml").write_text(task)
    return tmp_path


@pytest.fixture
def shell(plane: ControlPlane, namespace: Namespace, folder: Path) -> Shell:
    """A person's shell, with this namespace in the context, and kubectl and helm on the path."""
    programs = folder / "bin"
    programs.mkdir()
    helm = find_helm()
    for name, target in {"kubectl": plane.kubectl_binary, "helm": helm}.items():
        if target is not None:
            (programs / name).symlink_to(target)
    config = folder / "kubeconfig"
    shutil.copy(plane.kubeconfig, config)
    plane.kubectl("--kubeconfig", str(config), "config", "set-context", "--current", f"--namespace={namespace.name}")
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "KUBECONFIG": str(config)}

    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def kubelet(namespace: Namespace, folder: Path) -> Iterator[Kubelet]:
    with Kubelet(namespace, port=1, folder=folder).serving() as node:
        yield node


def complaints(shell: Shell, command: Command, namespace: Namespace) -> list[str]:
    """Run a command; say what is wrong with the answer."""
    text = re.sub(r"\bNS\b", namespace.name, command.text)
    for shape, instead in CHANGED.items():
        text = re.sub(shape, instead, text)
    done = shell(text)
    expected = next((answer for part, answer in ANSWERS.items() if part in text), None)
    if done.returncode == 0 or (expected is not None and re.fullmatch(expected, done.stderr, re.DOTALL)):
        return []
    return [f"{command.block}: {text}\n{done.stdout}{done.stderr}"]


def reading(command: Command) -> bool:
    """Whether it changes nothing."""
    verbs = {"annotate", "apply", "create", "delete", "patch"}
    return not verbs & set(command.words)


@pytest.fixture
def digits(namespace: Namespace, operator: Operator, coordinator: Coordinator, kubelet: Kubelet, shell: Shell) -> None:
    """The task that the pages speak of, whose pods are on a node."""
    assert shell("kubectl apply -f examples/digits.yaml").returncode == 0
    for pod in namespace.await_pods(6):
        kubelet.take(pod)
        namespace.run_pod(pod, address=coordinator.address if pod.endswith("coordinator") else "127.0.0.1")


@pytest.mark.usefixtures("digits")
def test_collectives_commands_are_answered(
    namespace: Namespace, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, where they start at once."""
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    typed = {" ".join(command.words): command for command in of("collective") if command.words[1] in IN_A_CLUSTER}
    for command in typed.values():
        words = [namespace.name if word == "lab" else word for word in command.words[1:]]
        assert main(words) == 0, f"{command.block}: {command.text}\n{capfd.readouterr().err}"
    assert {command.words[1] for command in typed.values()} == {*IN_A_CLUSTER}


@pytest.mark.usefixtures("digits")
def test_kubectls_commands_are_answered(namespace: Namespace, shell: Shell) -> None:
    if not namespace.plane.get(f"/api/v1/namespaces/{SYSTEM}"):
        namespace.plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": SYSTEM}})

    typed = {command.text: command for command in of("kubectl") if not not_run(command) and RESTORE not in command.text}
    reads = [command for command in typed.values() if reading(command)]
    writes = [command for command in typed.values() if not reading(command)]
    with ThreadPoolExecutor(4) as pool:
        wrong = list(chain.from_iterable(pool.map(lambda command: complaints(shell, command, namespace), reads)))
    for command in sorted(writes, key=lambda command: " delete " in command.text):
        wrong += complaints(shell, command, namespace)
    assert wrong == []
    assert len(reads) > 30 and len(writes) > 5


def test_a_command_that_is_none_is_found(namespace: Namespace, shell: Shell) -> None:
    (first, *_) = of("kubectl")
    for text in ("kubectl get ctasks --colour", "kubectl get collections", "kubectl get pod nothing | grep x"):
        assert complaints(shell, Command(block=first.block, text=text), namespace), text


def test_helms_commands_do_what_they_say(namespace: Namespace, operator: Operator, shell: Shell) -> None:
    """Page by page, with a release of their own, without the definition: that Helm brings it, test_helm.py shows."""
    if find_helm() is None:
        pytest.fail(HOW_TO) if os.environ.get("CI") == "true" else pytest.skip(HOW_TO)
    release = f"pages-{namespace.name}"
    uninstall = f"helm uninstall {release} -n {namespace.name} --ignore-not-found"
    wrong: list[str] = []
    page = ""
    for command in of("helm"):
        text = re.sub(r"(--namespace )\S+", rf"\g<1>{namespace.name}", command.text)
        text = re.sub(r"(helm \w+) collective\b", rf"\g<1> {release}", text.replace("{lab}", f"{{{namespace.name}}}"))
        installs = command.words[1] == "install"
        if installs or command.page != page:
            assert shell(uninstall).returncode == 0
        if not installs and command.page != page:  # of a release that is there already
            before = f"helm install {release} helm/collective-operator -n {namespace.name} --set crds.enabled=false"
            assert shell(before).returncode == 0
        page = command.page
        text += " --set crds.enabled=false" if command.words[1] in ("install", "upgrade") else ""
        wrong += complaints(shell, Command(block=command.block, text=text), namespace)
    assert shell(uninstall).returncode == 0
    assert wrong == []


def test_a_task_goes_on_with_a_volume_that_is_put_back(
    namespace: Namespace, operator: Operator, shell: Shell, folder: Path
) -> None:
    """The restoring of docs/operations.md, word for word: the operator takes the claim for the task's own."""
    (command,) = [command for command in of("kubectl") if RESTORE in command.text]
    (claim,) = [block for block in blocks(command.page) if block.file == "digits-claim.yaml"]
    (folder / "digits-claim.yaml").write_text(claim.text)
    task = yaml.safe_load((ROOT / "examples" / "digits.yaml").read_text())
    (folder / RESTORE).write_text(yaml.safe_dump({**task, "spec": {**task["spec"], "suspend": True}}))
    assert complaints(shell, command, namespace) == []
    pods = namespace.await_pods(6)
    found: dict[str, Any] = namespace.plane.get(f"{namespace.core}/persistentvolumeclaims/digits-coordinator")
    assert found["spec"]["dataSource"]["name"] == "digits-monday"
    volumes = pods["digits-coordinator"]["spec"]["volumes"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "digits-coordinator"}} in volumes
    eventually(lambda: namespace.condition("Suspended").get("reason") == "Resumed", what="it goes on")
    assert namespace.condition("CoordinatorReady")["reason"] != "CreateRefused"
