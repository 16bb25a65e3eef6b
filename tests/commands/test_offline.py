"""The commands that need no cluster: init, check, completion; and the pure parts of the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from collective_operator.api import parse_task
from collective_operator.cli import main
from collective_operator.cluster.protocol import ClusterError
from collective_operator.commands.completion import completions
from collective_operator.commands.ended import result_document
from collective_operator.commands.forward import Forward
from collective_operator.commands.init import BUILT_IN, QUESTIONS
from collective_operator.commands.logs import pod_of
from collective_operator.commands.reading import Results, results_port
from collective_operator.commands.reading_pod import reading_pod
from collective_operator.commands.watch import new_rounds
from collective_operator.run.rounds import Rounds

ROOT = Path(__file__).parents[2]
VALID: dict[str, Any] = {
    "apiVersion": "collectivelearning.dev/v1alpha1",
    "kind": "CollectiveTask",
    "metadata": {"name": "x", "namespace": "lab", "uid": "u"},
    "spec": {"model": {"name": "M"}, "dataLoader": {"name": "D"}, "rounds": 3, "learners": {"count": 2}},
}


def collective(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collective_operator", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_init_without_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "-y"]) == 0
    assert main(["check", "task.yaml"]) == 0
    assert (
        "task.yaml: digits is valid: SKLEARN_DIGITS on DIGITS, 5 learners, 20 rounds, Vote" in capsys.readouterr().out
    )
    assert main(["init", "-y"]) == 2
    assert "task.yaml is there already; --force replaces it" in capsys.readouterr().err
    assert main(["init", "-y", "--force"]) == 0


def test_init_asks_again_until_the_task_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    answers = ["Not A Name", "mine", "MY_MODEL", "MY_DATA", "0", "many", "3", "", "7", "voodoo", "fedavg", "-1", "2"]
    done = collective("init", str(file), stdin="\n".join(answers) + "\n")
    assert done.returncode == 0, done.stderr
    assert "metadata.name: 'Not A Name' is not allowed" in done.stdout
    assert "spec.learners.count: 0 is not allowed" in done.stdout
    spec = parse_task(yaml.safe_load(file.read_text())).spec
    assert (spec.model.name, spec.data_loader.name, spec.rounds, spec.strategy.label) == (
        "MY_MODEL", "MY_DATA", 7, "FedAvg"
    )  # fmt: skip
    assert (spec.learners.size, spec.learners.learner(1).location) == (3, "data/1")
    assert yaml.safe_load(file.read_text())["spec"]["learners"]["gpus"] == {"count": 2}


def test_init_that_is_broken_off_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    done = collective("init", str(file), stdin="mine\n")
    assert (done.returncode, done.stderr) == (130, "\nnothing is written; --yes asks nothing\n")
    assert not file.exists()


def test_init_asks_nothing_when_it_could_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "none" / "task.yaml")]) == 2
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err
    assert main(["init", "-y", str(tmp_path / "my task.yaml")]) == 0
    assert f"kubectl apply -f '{tmp_path / 'my task.yaml'}'" in capsys.readouterr().out


def test_init_knows_what_is_built_in() -> None:
    done = collective("check", "--json")
    found = json.loads(done.stdout)["compatibilities"]
    for model, data in BUILT_IN.items():
        assert data in found[model], model
    assert len({question.key for question in QUESTIONS}) == len(QUESTIONS)


def test_check_says_of_a_file_what_the_cluster_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.json"
    good.write_text(yaml.safe_dump(VALID))
    spec = {**VALID["spec"], "rounds": 0, "strategy": {"type": "Vote", "gate": {"type": "Vote"}}}
    bad.write_text(json.dumps({**VALID, "spec": spec}))
    assert main(["check", str(good), str(bad)]) == 2
    told = capsys.readouterr()
    assert told.out == f"{good}: x is valid: M on D, 2 learners, 3 rounds, Vote\n"
    assert told.err == f"{bad}: spec.rounds: 0 is not allowed: must be greater than or equal to 1\n"
    assert main(["check", "--json", str(good), str(bad)]) == 2
    first, second = json.loads(capsys.readouterr().out)
    assert (first["valid"], second["valid"]) == (True, False)
    assert second["problems"][0].endswith("must be greater than or equal to 1")
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read: No such file or directory" in capsys.readouterr().err
    (tmp_path / "task").write_text(good.read_text())
    assert main(["check", str(tmp_path / "task")]) == 2
    assert "a task file's name ends with one of .yaml, .yml, .json" in capsys.readouterr().err
    for mixed in (["check", str(good), "my_module"], ["check", str(good), "--code", str(tmp_path)]):
        assert main(mixed) == 2


def test_check_reads_standard_input() -> None:
    done = collective("check", "-", stdin=yaml.safe_dump(VALID))
    assert (done.returncode, done.stdout.endswith("x is valid: M on D, 2 learners, 3 rounds, Vote\n")) == (0, True)
    done = collective("check", "-")
    assert (done.returncode, done.stderr) == (2, "-: is empty, expected exactly one CollectiveTask\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_COLLECTIVE_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=20)


def test_what_shells_are_told() -> None:
    environment = {
        **os.environ,
        "_COLLECTIVE_COMPLETE": "bash_complete",
        "COMP_WORDS": "collective s",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-m", "collective_operator"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) == {"plain,status", "plain,suspend", "plain,serve", "plain,serve-many"}


def test_what_kubectl_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, directive = completions(["re"])
    assert ([item.value for item in found], directive) == (["results", "resume", "retry"], 4)
    found, directive = completions(["list", "-o", ""])
    assert ([item.value for item in found], directive) == (["table", "json", "yaml"], 4)
    assert completions(["init", ""])[1] == completions(["check", ""])[1] == completions(["run", ""])[1] == 0, "files"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert completions(["status", ""]) == ([], 4), "no cluster, no word"


def test_which_pod_is_meant() -> None:
    counted = {"metadata": {"name": "x"}, "spec": {"learners": {"count": 3}}}
    sites = {"metadata": {"name": "x"}, "spec": {"learners": {"sites": [{"name": "north"}, {"name": "south"}]}}}
    assert pod_of(counted, None) == pod_of(counted, "coordinator") == ("x-coordinator", "coordinator")
    for said in ("2", "learner-2", "x-learner-2"):
        assert pod_of(counted, said) == ("x-learner-2", "learner")
    assert pod_of(sites, "south") == ("x-learner-1", "learner")
    for said in ("3", "-1", "learner-", "x-coordinator-1", "²"):
        with pytest.raises(Exception, match="there are learner-0 to learner-2"):
            pod_of(counted, said)


async def test_rounds_are_told_once_from_whole_lines() -> None:
    rounds = Rounds()

    async def told(content: bytes | None) -> list[int]:
        class Served:
            async def beyond(self, name: str, offset: int) -> bytes | None:
                assert (name, offset) == ("rounds.jsonl", rounds.offset)
                return content

        return [record["round"] for record in await new_rounds(rounds, cast("Results", Served()))]

    assert await told(b'{"round":1}\n{"round":2}\n{"rou') == [1, 2]
    assert rounds.offset == 24
    assert await told(b'{"round":3}\nno json\n') == [3]
    assert await told(b"") == []
    assert await told(None) == [] and rounds.offset == 0, "it is shorter: it was written anew"
    assert await told(b'{"round":3}\n{"round":4}\n') == [4]


def test_a_result_is_what_a_run_on_this_machine_writes() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BelowQuorum", "message": "m"}
    status = {"conditions": [failed], "round": {"current": 7, "accepted": 5}}
    found = result_document({"status": status})
    assert found is not None
    assert (found["phase"], found["reason"], found["rounds"], found["model"]) == ("Failed", "BelowQuorum", 7, None)
    assert result_document({"status": {}}) is None and result_document({}) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"files": [{"name": "model.safetensors", "size": 7}]}, None),
        ({"files": [{"name": "../../.bashrc", "size": 7}]}, "'../../.bashrc' is no name of a result"),
        ({"files": [{"name": "/etc/passwd", "size": 7}]}, "'/etc/passwd' is no name of a result"),
        ({"files": [{"name": ".profile", "size": 7}]}, "'.profile' is no name of a result"),
        ({"files": 7}, "the answer is no list of files"),
        ([], "the answer is no list of files"),
        (b"[" * 50_000, "the answer is no list of files"),
        (b" " * 2_000_000, "the answer is longer than 1048576 bytes"),
        ("/elsewhere", "answered with 302"),
    ],
)
async def test_a_pod_cannot_have_files_written_elsewhere(said: object, told: str | None) -> None:
    async def listing(_: web.Request) -> web.Response:
        if isinstance(said, str):
            raise web.HTTPFound(said)
        return web.Response(body=said) if isinstance(said, bytes) else web.json_response(said)

    app = web.Application()
    app.add_routes([web.get("/results", listing)])
    async with TestServer(app) as server, ClientSession(server.make_url("/")) as session:
        nobody: Any = None
        results = Results(Forward(api=nobody, namespace="lab", pod="x", port=1), session)
        if told is None:
            assert await results.sizes() == {"model.safetensors": 7}
        else:
            with pytest.raises(ClusterError, match=re.escape(told)):
                await results.sizes()


def test_the_pod_that_reads_a_volume() -> None:
    overrides = {"spec": {"nodeSelector": {"pool": "a"}, "containers": [{"name": "coordinator", "env": []}]}}
    task = parse_task({**VALID, "spec": {**VALID["spec"], "coordinator": {"podOverrides": overrides}}})
    pod = reading_pod(task, name="x-results-1", image="operator:1")
    assert "collectivelearning.dev/task" not in pod["metadata"]["labels"], "the operator would take it for its own"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "u", "it goes with its task"
    (container,) = pod["spec"]["containers"]
    assert container["volumeMounts"][0] == {"name": "state", "mountPath": "/var/lib/collective", "readOnly": True}
    assert pod["spec"]["nodeSelector"] == {"pool": "a"} and pod["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert results_port(pod) == 8082
    pod["spec"]["containers"].insert(0, {"name": "proxy", "ports": [{"name": "http", "containerPort": 1}]})
    assert results_port(pod) == 8082, "whatever a mesh put before it"
