"""rounds.png: drawn by a program of its own, for few learners and for many, and its absence is one line."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from collective_coordinator import plot as plotting

pytest.importorskip("matplotlib")


def rounds(learners: int, count: int) -> str:
    lines = []
    for number in range(1, count + 1):
        proposer = f"learner-{number % learners}"
        names = [f"learner-{index}" for index in range(learners)]
        scores = {name: None if name == "learner-1" and number == 1 else 0.5 + 0.4 * number / count for name in names}
        votes = {name: number % 3 > 0 for name in names if name != proposer}
        lines.append(json.dumps({
            "round": number, "proposer": proposer, "accepted": number % 3 > 0, "votes": votes,
            "voteScores": scores, "testScores": scores, "seconds": {},
        }))  # fmt: skip
    return "\n".join(lines) + "\n"


def plot(*arguments: object, prelude: str = "") -> subprocess.CompletedProcess[str]:
    program = (
        f"import runpy, sys\n{prelude}\n"
        "runpy.run_module('collective_coordinator.plot', run_name='__main__', alter_sys=True)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("learners", "count"), [(5, 20), (50, 30)])
def test_draws_a_picture(tmp_path: Path, learners: int, count: int) -> None:
    source, picture = tmp_path / "rounds.jsonl", tmp_path / "rounds.png"
    source.write_text(rounds(learners, count) + '{"round": 99, "half')
    done = plot(source, picture)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    raw = picture.read_bytes()
    assert raw.startswith(b"\x89PNG\r\n") and raw[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", raw[16:24])
    assert width == 1080 and 600 < height < 1800
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_no_line_leads_to_is_a_dot() -> None:
    nan = float("nan")
    assert plotting._alone([0.5]) == [0]
    assert plotting._alone([0.5, nan, 0.4, nan, 0.3, 0.2, nan, 0.1]) == [0, 2, 7]
    assert plotting._alone([nan]) == plotting._alone([]) == plotting._alone([0.1, 0.2]) == []


def test_draws_averaging_with_and_without_a_gate(tmp_path: Path) -> None:
    source, picture = tmp_path / "rounds.jsonl", tmp_path / "rounds.png"
    names = ["learner-0", "learner-1", "learner-2"]
    lines = [
        {
            "round": number, "strategy": "FedAvg", "proposer": None, "trainers": names[:2], "accepted": True,
            "votes": dict.fromkeys(names, True) if number > 2 else {}, "voteScores": dict.fromkeys(names, 0.5),
            "testScores": dict.fromkeys(names, 0.5), "seconds": {}, "leftOut": {"learner-3": "Connecting"},
        } for number in range(1, 5)
    ]  # fmt: skip
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = plot(source, picture)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
    cells = [[plotting._cell(line, name) for name in [*names, "learner-3"]] for line in (lines[0], lines[3])]
    shown = [[plotting._CELLS[cell][0] for cell in row] for row in cells]
    assert shown == [
        ["trained", "trained", "tested", "took no part"], ["voted for", "voted for", "voted for", "took no part"],
    ]  # fmt: skip


def test_tells_in_one_line_why_there_is_no_picture(tmp_path: Path) -> None:
    source, picture = tmp_path / "rounds.jsonl", tmp_path / "rounds.png"
    missing = plot(source, picture)
    source.write_text("")
    empty = plot(source, picture)
    source.write_text("no json\n")
    wrong = plot(source, picture)
    source.write_text(rounds(2, 2))
    nowhere = plot(source, tmp_path / "none" / "rounds.png")
    without = plot(source, picture, prelude="sys.modules['matplotlib'] = None")
    for done, said in (
        (missing, f"{source}: No such file"),
        (nowhere, f"{tmp_path / 'none' / 'rounds.png'}: No such file"),
        (empty, "holds no round yet"),
        (wrong, "Expecting value"),
        (without, "pip install 'collective-operator[run]'"),
    ):
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1 and said in done.stderr
    assert plot(source).returncode == 2
    assert not picture.exists()


def test_the_coordinator_never_loads_matplotlib() -> None:
    program = (
        "import sys, collective_coordinator.plot\n"
        "assert not any(name.partition('.')[0] in ('matplotlib', 'numpy') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
