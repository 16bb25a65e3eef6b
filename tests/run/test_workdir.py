"""A run's folder is one task's, and one process's at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from collective_operator.run.refusal import RefusedError
from collective_operator.run.rounds import RoundsFile
from collective_operator.run.task_file import TaskFile, read_task_file
from collective_operator.run.workdir import Workdir, default_workdir

TASK = """
apiVersion: collectivelearning.dev/v1alpha1
kind: CollectiveTask
metadata: {name: t}
spec:
  model: {name: M, parameters: {a: 1}}
  dataLoader: {name: D}
  rounds: 3
  learners: {count: 2}
"""


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., TaskFile]:
    def write(*changes: tuple[str, str]) -> TaskFile:
        text = TASK
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "task.yaml"
        path.write_text(text)
        return read_task_file(path)

    return write


def test_the_uid_stays_and_the_manifest_is_as_from_an_api_server(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    first = Workdir(tmp_path / "deep" / "run", task())
    first.close()
    # A default that is written out is no difference.
    again = Workdir(tmp_path / "deep" / "run", task(("rounds: 3", "rounds: 3\n  seed: 0")))
    assert again.uid == first.uid
    assert again.manifest(task())["metadata"] == {
        "name": "t",
        "namespace": "default",
        "uid": first.uid,
        "generation": 1,
    }
    again.close()
    other = Workdir(tmp_path / "other", task())
    assert other.uid != first.uid
    other.close()


def test_whatever_suspend_says_it_is_the_same_task_and_goes_on(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    Workdir(tmp_path / "run", task()).close()
    suspended = task(("rounds: 3", "rounds: 3\n  suspend: true"))
    again = Workdir(tmp_path / "run", suspended)
    assert again.manifest(suspended)["spec"]["suspend"] is False
    again.close()


def test_a_folder_from_before_a_field_was_there_is_gone_on_with(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    Workdir(tmp_path / "run", task()).close()
    kept = json.loads((tmp_path / "run" / "task.json").read_text())
    del kept["task"]["spec"]["policy"]["backoff"]
    (tmp_path / "run" / "task.json").write_text(json.dumps(kept))
    Workdir(tmp_path / "run", task()).close()


def test_another_task_is_refused_with_what_differs(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    Workdir(tmp_path / "run", task()).close()
    with pytest.raises(RefusedError) as caught:
        Workdir(tmp_path / "run", task(("rounds: 3", "rounds: 4"), ("{a: 1}", "{b: 2}"), ("name: t}", "name: u}")))
    head, *differences = caught.value.problems
    assert "belongs to a task that differs from" in head
    assert differences == [
        '  metadata.name: was "t", is "u"',
        "  spec.model.parameters.a: was 1, is null",
        "  spec.model.parameters.b: was null, is 2",
        "  spec.rounds: was 3, is 4",
    ]
    Workdir(tmp_path / "run", task()).close()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(RefusedError, match="holds files that are no run's"):
        Workdir(tmp_path / "thesis", task())
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    with pytest.raises(RefusedError, match="cannot be used as a folder"):
        Workdir(tmp_path / "thesis" / "chapter.txt", task())


def test_a_damaged_folder_is_refused(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    Workdir(tmp_path / "run", task()).close()
    (tmp_path / "run" / "task.json").write_text("{}")
    with pytest.raises(RefusedError, match="is damaged"):
        Workdir(tmp_path / "run", task())


def test_only_one_at_a_time(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    first = Workdir(tmp_path / "run", task())
    with pytest.raises(RefusedError, match="another `collective run` works in this folder"):
        Workdir(tmp_path / "run", task())
    first.close()
    Workdir(tmp_path / "run", task()).close()


def test_the_result_is_there_whole_or_not_at_all(tmp_path: Path, task: Callable[..., TaskFile]) -> None:
    folder = Workdir(tmp_path / "run", task())
    assert folder.result() is None
    folder.write_result({"phase": "Complete"})
    assert folder.result() == {"phase": "Complete"}
    with pytest.raises(ValueError, match="Out of range float"):
        folder.write_result({"testScore": float("nan")})
    assert folder.result() == {"phase": "Complete"}
    folder.close()


def test_default_folders_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    chosen = []
    for _ in range(3):
        chosen.append(default_workdir("t"))
        chosen[-1].mkdir(parents=True)
    assert [str(path) for path in chosen] == [
        "runs/t-20260102-030405", "runs/t-20260102-030405-2", "runs/t-20260102-030405-3",
    ]  # fmt: skip


def test_rounds_are_told_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    rounds = RoundsFile(path)
    assert list(rounds.new()) == []
    line = [json.dumps({"round": number, "proposer": "x"}) + "\n" for number in range(1, 5)]
    path.write_text(line[0] + line[1][:9])
    assert [record["round"] for record in rounds.new()] == [1]
    assert list(rounds.new()) == []
    path.write_text(line[0] + line[1] + line[2])
    assert [record["round"] for record in rounds.new()] == [2, 3]
    # A coordinator that lost its last decision writes the file anew, and decides the round again.
    path.write_text(line[0])
    assert list(rounds.new()) == []
    path.write_text("".join(line))
    assert [record["round"] for record in rounds.new()] == [4]
