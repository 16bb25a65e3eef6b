"""Results brought to where a task says: all of them or an error that says why, whatever the store does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from collective_coordinator.delivery.delivery import Delivery
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.metrics import Metrics

from .stores import KEYS, S3, Line, line, s3_server

pytestmark = pytest.mark.timeout(300)  # programs that load a store's library, one after the other
DOCUMENT = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
GOOD = {"target": 2.0, "model": {"bytes": 300_000}}
FILES = {"rounds.jsonl", "model.safetensors", "best-model.safetensors", "model.onnx", "model-card.md"}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def to_s3(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Have coordinators speak with the server over a line that can be cut."""
    with line(s3.port) as opened:
        for variable, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{opened.port}"}.items():
            monkeypatch.setenv(variable, value)
        yield opened


def head_of(card: str) -> dict:
    empty, head, text = card.split("---\n", 2)
    assert not empty and text.startswith("\n# ")
    return yaml.safe_load(head)


def to(location, coordinated, learners, *, rounds=2, **more):
    result = {"formats": ["safetensors", "onnx"], "location": location}
    return coordinated(learners, rounds=rounds, result=result, **more)


def test_what_is_not_taken_fails_the_task_and_another_try_brings_it_all_with_a_card(vectors, coordinated, s3, to_s3):
    to_s3.silent_from = b"PUT /models/digits/model.safetensors"
    task = to("s3://models/digits", coordinated, vectors(GOOD, GOOD), policy={"roundTimeoutSeconds": 8})
    task.config["learners"][0]["location"] = "/wards/seven"
    task.config["dataLoader"]["parameters"] = {"batch_size": 32, "token": "hush"}
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "UploadFailed"), task.log
    assert "All rounds are decided, and the model is on the coordinator's volume" in verdict["message"]
    assert (verdict["round"]["current"], "location" in verdict["result"]) == (2, False)
    assert {path.name for path in task.state.iterdir()} >= FILES
    assert "digits/model-card.md" not in s3.objects("models"), "it comes last"

    to_s3.silent_from = b""
    task.config["task"]["retry"] = "2026-01-01T00:00:00Z"
    verdict = task.run()
    assert (verdict["phase"], verdict["result"]["location"]) == ("Complete", "s3://models/digits"), task.log
    assert len(task.records()) == 2
    there = {name.removeprefix("digits/"): content for name, content in s3.objects("models").items()}
    assert there.keys() == FILES, "and not what was written to see whether it can be"
    assert all((task.state / name).read_bytes() == content for name, content in there.items())
    card = there["model-card.md"].decode()
    facts = head_of(card)["collective"]
    assert facts["digest"] == verdict["result"]["digest"]
    assert {file["name"]: file["sha256"] for file in facts["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in there.items() if name != "model-card.md"
    }
    assert (facts["rounds"], facts["accepted"]) == (2, verdict["result"]["accepted"])
    assert facts["examples"] == {"learner-0": 1, "learner-1": 1}, "also after a restart"
    assert facts["task"]["dataLoader"] == {"name": "PLAIN", "parameters": {"batch_size": 32}}
    for secret in ("/wards/seven", "hush", KEYS["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in card
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    told = subprocess.check_output([sys.executable, "-c", snippet], cwd=task.state, text=True, timeout=60)
    assert told.split() == [str(verdict["result"]["testScore"]), facts["files"][0]["sha256"]]


def test_a_bucket_that_is_not_there_is_told_at_the_start(vectors, coordinated, s3, to_s3):
    verdict = to("s3://modles/digits", coordinated, vectors(GOOD, GOOD), rounds=100_000).run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "UploadFailed")
    assert "result.location: 's3://modles/digits' cannot be written to: " in verdict["message"]
    assert "The specified bucket does not exist" in verdict["message"] and "result.secretRef" in verdict["message"]
    assert [bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]] == ["models"]


async def refusal(url: str, *, patience_s: float = 30.0) -> str:
    with pytest.raises(TaskFailedError) as refused:
        await Delivery(url=url, patience_s=patience_s, metrics=Metrics()).check()
    assert refused.value.reason == "UploadFailed"
    return refused.value.message


async def test_places_that_take_nothing_are_told_by_what_is_wrong_with_them(s3, to_s3):
    assert "nothing is known that reads nosuch://" in await refusal("nosuch://models/digits")
    assert "needs ossfs, which is not installed: pip install ossfs" in await refusal("oss://models/digits")
    assert "/proc/digits" in await refusal(Path("/proc/digits").as_uri())
    s3.ask_for_keys(True)
    try:
        told = await refusal("s3://models/digits")
    finally:
        s3.ask_for_keys(False)
    assert "PermissionError" in told and KEYS["AWS_SECRET_ACCESS_KEY"] not in told.split()
    to_s3.mode = "silent"
    assert "there was no answer for 2 s" in await refusal("s3://models/digits", patience_s=2.0)
    await Delivery(url="memory://anything", patience_s=30.0, metrics=Metrics()).check()


def test_killed_on_the_way_it_begins_again_and_needs_no_learners_for_that(vectors, coordinated, s3, to_s3, tmp_path):
    to_s3.silent_from = b"PUT /models/killed/model.safetensors"
    task = to("s3://models/killed", coordinated, vectors(GOOD, GOOD))
    task.config["result"]["tensorBoard"] = "s3://models/logs"
    process = task.start()
    assert to_s3.silenced.wait(120), task.log
    assert task.status()["reason"] == "UploadingResult"
    process.kill()
    process.wait(60)
    assert to_s3.left.wait(60), "who brings it ends with the coordinator"
    to_s3.silent_from = b""
    for learner in task.config["learners"]:
        learner["address"] = f"{learner['name']}.invalid:9995"
    verdict = task.run()
    assert (verdict["phase"], len(task.records())) == ("Complete", 2), task.log
    there = s3.objects("models")
    assert all(there[f"killed/{name}"] == (task.state / name).read_bytes() for name in FILES)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for name, content in there.items():
        if name.startswith("logs/events.out.tfevents."):
            (tmp_path / name.removeprefix("logs/")).write_bytes(content)
    read = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [scalar.step for scalar in read.Scalars("accepted")] == [1, 2]


async def test_a_large_file_arrives_whole_in_a_folder_and_in_parts_in_a_bucket(s3, to_s3, tmp_path):
    content = bytes(range(256)) * 40_000
    (tmp_path / "model.safetensors").write_bytes(content)
    folder = tmp_path / "shared" / "digits"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"of another model")
    for url in (folder.as_uri(), "s3://models/large"):
        delivery = Delivery(url=url, patience_s=30.0, metrics=Metrics())
        await delivery.check()
        await delivery.bring(tmp_path, ["model.safetensors"])
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == content
    assert s3.objects("models")["large/model.safetensors"] == content
    etag = s3.client().head_object(Bucket="models", Key="large/model.safetensors")["ETag"]
    assert etag.endswith('-2"'), "it went in parts"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small file system needs root and unshare"
)
def test_a_full_disk_gets_no_half(tmp_path):
    source, folder = tmp_path / "model.bin", tmp_path / "small"
    source.write_bytes(b"x" * 300_000)
    folder.mkdir()
    job = {"url": folder.as_uri(), "files": [{"path": str(source), "name": "model.bin"}]}
    script = f'mount -t tmpfs -o size=64k tmpfs {folder}; cd {folder}; echo of before >model.bin; "$@"; ls -A; cat *'
    courier = [sys.executable, "-m", "collective_coordinator.delivery.courier"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *courier]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as done:
        # Open to the end: the end of it would be the coordinator's.
        done.stdin.write(json.dumps(job) + "\n")
        done.stdin.flush()
        *_, told, files, content = done.stdout.read().splitlines()
    assert "No space left on device" in json.loads(told)["error"]
    assert (json.loads(told)["final"], files, content) == (False, "model.bin", "of before")


def test_a_card_is_written_of_every_task_and_names_break_nothing(plain, coordinated):
    task = coordinated(plain({}, {}), rounds=2)
    odd = {"a|b": "`x`\n---\n# y", "n": None, "ü": "\U0001f600 \x7f\x85\u2028\ufeff \\ud83d\\ude00"}
    task.config["model"] = {"name": "PLAIN", "parameters": odd}
    verdict = task.run()
    assert "location" not in verdict["result"]
    card = (task.state / "model-card.md").read_text()
    facts = head_of(card)["collective"]
    assert facts["task"]["model"]["parameters"] == odd
    assert [file["name"] for file in facts["files"]] == ["rounds.jsonl", "model.bin", "best-model.bin"]
    assert "| model.parameters.a/b | `'x' --- # y` |" in card
    assert "No safetensors: `the learners have a format of their own" in card
    assert "safetensors.numpy" not in card
