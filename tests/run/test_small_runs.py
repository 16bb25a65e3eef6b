"""Whole runs of small learners: real processes, killed, interrupted, resumed, refused."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .runs import Run, halving, result, rounds, untimed

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
Start = Callable[..., Run]


def is_whole(records: list[dict], count: int) -> bool:
    """Whether every round is there once, in order, with the halving task's outcome."""
    assert [record["round"] for record in records] == list(range(1, count + 1))
    for record in records:
        assert record["accepted"] == (record["proposer"] != "learner-2")
    return True


def test_a_third_party_module_is_trained_and_leaves_everything_behind(start: Start, tmp_path: Path) -> None:
    run = start(halving(tmp_path), "--workdir", "out")
    assert run.wait() == 0, run.output
    run.until_gone()
    out = tmp_path / "out"
    records = rounds(out)
    assert is_whole(records, 6)
    assert records[1]["votes"] == {"learner-0": True, "learner-2": True}
    assert set(records[1]["testScores"]) == {"learner-0", "learner-1", "learner-2"}
    assert set(records[1]["seconds"]) == {"propose", "test", "accept"}
    told = result(out)
    # Four accepted halvings of the distance 1.
    assert (told["phase"], told["rounds"], told["accepted"], told["model"]) == ("Complete", 6, 4, "model.safetensors")
    assert told["testScore"] == told["voteScore"] == pytest.approx(1 - 0.5**4, abs=1e-4)
    assert told["proposer"] == "learner-1"
    assert (out / "rounds.png").read_bytes().startswith(b"\x89PNG")
    logs = {path.name for path in (out / "logs").iterdir()}
    assert {"learner-0.log", "learner-1.log", "learner-2.log", "coordinator.log"} <= logs
    lines = run.output.splitlines()
    assert lines[0] == "halving: 3 learners, 6 rounds, in out"
    assert sum(line.startswith("round ") for line in lines) == 6
    assert any(line.startswith("round 3/6  learner-2  rejected  0/2 votes") for line in lines)
    starts = [line.split(":")[0].split("  ")[0] for line in lines]
    assert starts.index("round 6/6") < starts.index("RoundsCompleted"), "in their order"
    assert lines[-2].startswith("Complete: 6 rounds, 4 accepted, test score 0.938")

    again = start(halving(tmp_path), "--workdir", "out")
    assert again.wait() == 0
    assert "this run has ended already" in again.output
    assert again.output.splitlines()[-2:] == lines[-2:]

    other = start(halving(tmp_path, rounds=7), "--workdir", "out")
    assert other.wait() == 2
    assert "spec.rounds: was 6, is 7" in other.output
    assert rounds(out) == records


def test_the_result_is_brought_where_the_task_says(start: Start, tmp_path: Path) -> None:
    file = halving(tmp_path, rounds=2)
    file.write_text(f"{file.read_text()}  result: {{location: 'file://{tmp_path}/models/halving'}}\n")
    run = start(file, "--workdir", "out")
    assert run.wait() == 0, run.output
    place = tmp_path / "models" / "halving"
    assert result(tmp_path / "out")["location"] == f"file://{place}"
    assert run.output.splitlines()[-1] == f"file://{place}: the model and its rounds, too"
    names = {"rounds.jsonl", "model.safetensors", "best-model.safetensors", "model-card.md"}
    assert {path.name for path in place.iterdir()} == names
    assert all((place / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in names)
    assert "model-card.md" in run.output.splitlines()[-2]


def test_json_lines_and_the_default_folder(start: Start, tmp_path: Path) -> None:
    # What is for clusters alone does no harm here: nobody resumes, and the task is a file that stays.
    gate = tmp_path / "gate"
    file = halving(tmp_path, rounds=3, gate=gate, free=0)
    policy = "{ttlSecondsAfterFinished: 0, cleanPods: None, backoff: {limit: 1}}"
    file.write_text(f"{file.read_text()}  policy: {policy}\n  suspend: true\n")
    run = start(file, "--json")
    run.until(lambda: '"phase": "Running"' in run.output)
    gate.touch()
    assert run.wait() == 0, run.output
    lines = [json.loads(line) for line in run.output.splitlines()]
    assert lines[0]["event"] == "begin" and lines[-1]["event"] == "end"
    workdir = tmp_path / lines[0]["workdir"]
    assert workdir.parent == tmp_path / "runs" and workdir.name.startswith("halving-")
    assert [line["record"] for line in lines if line["event"] == "round"] == rounds(workdir)
    assert lines[-1]["result"] == result(workdir)
    assert any("spec.suspend" in line.get("message", "") for line in lines if line["event"] == "note")
    assert file.exists()
    phases = [line["phase"] for line in lines if line["event"] == "status"]
    assert phases[-1] == "Complete" and "Running" in phases


def test_a_killed_learner_comes_back_and_no_round_is_lost(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = start(halving(tmp_path, rounds=12, gate=gate), "--workdir", "out")
    out = tmp_path / "out"
    run.until(lambda: len(rounds(out)) >= 3)
    os.kill(run.learner(1, out), signal.SIGKILL)
    gate.touch()
    assert run.wait() == 0, run.output
    assert [record["round"] for record in rounds(out)] == list(range(1, 13))
    assert result(out)["phase"] == "Complete"
    assert (out / "logs" / "learner-1.log").read_text().count("--- ") == 2


def test_a_killed_coordinator_goes_on_with_the_next_round(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = start(halving(tmp_path, rounds=12, gate=gate), "--workdir", "out")
    out = tmp_path / "out"
    run.until(lambda: len(rounds(out)) >= 3)
    os.kill(run.children("collective_coordinator")[0], signal.SIGKILL)
    gate.touch()
    assert run.wait() == 0, run.output
    assert is_whole(rounds(out), 12)
    assert (out / "logs" / "coordinator.log").read_text().count("--- ") == 2


def test_a_killed_run_leaves_no_process_and_goes_on_later(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = halving(tmp_path, rounds=12, gate=gate)
    first = start(task, "--workdir", "out")
    out = tmp_path / "out"
    first.until(lambda: len(rounds(out)) >= 3)
    assert len(first.children("collective_learner")) == 3
    first.process.kill()
    first.wait()
    first.until_gone()
    before = rounds(out)
    assert not (out / "result.json").exists()

    gate.touch()
    second = start(task, "--workdir", "out")
    assert second.wait() == 0, second.output
    assert f"going on after round {len(before)}" in second.output.splitlines()[0]
    assert is_whole(rounds(out), 12)
    assert untimed(rounds(out))[: len(before)] == untimed(before)
    assert result(out)["accepted"] == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_everything_and_is_130(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    task = halving(tmp_path, rounds=1000, seconds=0.1)
    run = start(task, "--workdir", "out")
    out = tmp_path / "out"
    run.until(lambda: len(rounds(out)) >= 2)
    if number is signal.SIGINT:
        second = start(task, "--workdir", "out")
        assert second.wait() == 2
        assert "another `collective run` works in this folder" in second.output
    run.process.send_signal(number)
    assert run.wait() == 130
    run.until_gone()
    assert run.output.splitlines()[-1] == f"interrupted; to go on: collective run {task} --workdir out"
    assert "Traceback" not in run.output
    assert not (out / "result.json").exists()


def test_a_second_interruption_insists(start: Start, tmp_path: Path) -> None:
    """Learners in the middle of a training of a minute are given their grace, unless somebody insists."""
    run = start(halving(tmp_path, seconds=60), "--workdir", "out")
    out = tmp_path / "out"
    run.until(lambda: "Running" in run.output or "RoundsRunning" in run.output)
    for pid in run.children("collective_learner"):
        os.kill(pid, signal.SIGSTOP)  # Deaf to SIGTERM.
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: "ending every process" in run.output)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    run.until_gone()
    assert not (out / "result.json").exists()


def test_an_unknown_model_fails_with_what_there_is(start: Start, tmp_path: Path) -> None:
    task = halving(tmp_path)
    task.write_text(task.read_text().replace("name: HALVING", "name: HALFING"))
    run = start(task, "--workdir", "out")
    assert run.wait() == 1, run.output
    told = result(tmp_path / "out")
    assert (told["phase"], told["model"], told["rounds"]) == ("Failed", None, 0)
    assert "HALFING" in told["message"] and "HALVING" in told["message"]
    assert f"Failed ({told['reason']}): {told['message']}" in run.output
    run.until_gone()
    again = start(task, "--workdir", "out")
    assert again.wait() == 1
    assert told["message"] in again.output


def test_a_password_in_a_location_is_told_to_nobody(start: Start, tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text("""
        apiVersion: collectivelearning.dev/v1alpha1
        kind: CollectiveTask
        metadata: {name: secretive}
        spec:
          model: {name: FRAUD}
          dataLoader: {name: FRAUD}
          rounds: 1
          learners: {count: 1, location: "https://me:s3cr3t@127.0.0.1:1/x"}
    """)
    run = start(task, "--workdir", "out")
    assert run.wait() == 1, run.output
    told = result(tmp_path / "out")
    assert "'https://me:...@127.0.0.1:1/x' cannot be read" in told["message"]
    said = [path.read_text() for path in (tmp_path / "out" / "logs").iterdir()]
    assert any("Traceback" in text for text in said)
    assert not [text for text in (*said, run.output, json.dumps(told)) if "s3cr3t" in text]


def test_an_import_that_fails_ends_the_run_with_its_words(start: Start, tmp_path: Path) -> None:
    run = start(halving(tmp_path, imports="broken_module"), "--workdir", "out")
    assert run.wait(60) == 1, run.output
    told = result(tmp_path / "out")
    assert (told["phase"], told["reason"]) == ("Failed", "ImportFailed")
    first, *rest = told["message"].splitlines()
    said = "--import broken_module failed: RuntimeError: this module needs the moon to be full"
    assert re.fullmatch(rf"halving-learner-\d: {re.escape(said)}", first)
    assert "broken_module.py" in rest[-2], "and where"
    assert run.output.count("last lines of out/logs/learner-") == 1, "all say the same: once is enough"
    assert "warning: Crashing" not in run.output
    run.until_gone()


GATED = """
import time
from pathlib import Path
while not Path("gate").exists():
    time.sleep(0.02)
from halving import *
"""


def test_a_learner_is_ready_once_it_has_a_model(start: Start, tmp_path: Path) -> None:
    (tmp_path / "gated.py").write_text(GATED)
    trains = tmp_path / "trains"
    task = halving(tmp_path, rounds=2, imports="gated", gate=trains, free=0)
    run = start(task, "--workdir", "out", "--json")
    logs = [tmp_path / "out" / "logs" / f"learner-{index}.log" for index in range(3)]
    run.until(lambda: all(log.exists() and "listening on" in log.read_text() for log in logs))
    run.until(lambda: '"phase": "Starting"' in run.output)
    assert max(ready_counts(run)) == 0
    (tmp_path / "gate").touch()
    run.until(lambda: max(ready_counts(run)) == 3)
    trains.touch()
    assert run.wait() == 0, run.output
    assert is_whole(rounds(tmp_path / "out"), 2)


def ready_counts(run: Run) -> list[int]:
    """How many learners were ready, whenever something was told of it."""
    lines = run.output.splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return [line["learners"]["ready"] for line in told if line["event"] == "status"]


def test_a_learner_that_dies_over_its_data_again_and_again_ends_the_run(start: Start, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nimport halving\nhalving.Target = lambda index: os._exit(7)\n")
    run = start(halving(tmp_path, imports="deadly"), "--workdir", "out")
    assert run.wait() == 1, run.output
    told = result(tmp_path / "out")
    assert (told["phase"], told["reason"]) == ("Failed", "LearnerCrashing")
    assert re.fullmatch(r"learner-\d ended 3 times before it was ready: .*", told["message"])
    run.until_gone()


def test_a_module_in_the_present_folder_is_found(start: Start, tmp_path: Path) -> None:
    (tmp_path / "halving.py").write_text((Path(__file__).parent / "modules" / "halving.py").read_text())
    run = start(halving(tmp_path, rounds=2), "--workdir", "out", module_path=tmp_path / "nowhere")
    assert run.wait() == 0, run.output
    assert is_whole(rounds(tmp_path / "out"), 2)


def test_refused_input_is_2_and_starts_nothing(start: Start, tmp_path: Path) -> None:
    task = halving(tmp_path)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(task.read_text().replace("rounds: 6", "rounds: 0").replace("count: 3", "count: 0"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("spec: [1\n")
    for file, said in (
        (wrong, [f"Error: {wrong}: spec.rounds: 0", f"Error: {wrong}: spec.learners.count: 0"]),
        (broken, [f"Error: {broken}:2:1: is no valid YAML"]),
        (tmp_path / "missing.yaml", [f"Error: {tmp_path}/missing.yaml: cannot be read: No such file"]),
    ):
        run = start(file)
        assert run.wait() == 2
        lines = run.output.splitlines()
        assert len(lines) == len(said)
        assert all(any(line.startswith(part) for line in lines) for part in said), lines
    assert not (tmp_path / "runs").exists()


def test_same_seed_same_rounds(start: Start, tmp_path: Path) -> None:
    task = halving(tmp_path)
    first, second = start(task, "--workdir", "a"), start(task, "--workdir", "b")
    assert (first.wait(), second.wait()) == (0, 0)
    assert untimed(rounds(tmp_path / "a")) == untimed(rounds(tmp_path / "b"))


def test_a_terminal_gets_a_live_table_and_its_ctrl_c_works(start: Start, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.set_blocking(ours, False)
    run = start(halving(tmp_path, rounds=1000, seconds=0.05), "--workdir", "out", stdout=theirs)
    os.close(theirs)
    shown = b""

    def sees(text: bytes) -> bool:
        nonlocal shown
        with contextlib.suppress(OSError):  # nothing is there just now, or the other end is closed
            shown += os.read(ours, 65536)
        return text in shown

    run.until(lambda: sees(b"proposer"))
    run.until(lambda: sees(b" left"))
    assert b"learner-2" in shown and b"/1000" in shown and b"test score" in shown
    run.process.send_signal(signal.SIGINT)
    while run.process.poll() is None:  # nobody can write to a terminal for long that nobody reads
        sees(b"")
        time.sleep(0.02)
    assert run.wait() == 130
    with contextlib.suppress(OSError):  # The other end is closed: all is read.
        while sees(b"") and len(chunk := os.read(ours, 65536)):
            shown += chunk
    assert b"interrupted; to go on" in shown
    assert b"\x1b[?25h" in shown, "the cursor is shown again"
    os.close(ours)
