"""`collective` on a person's machine, through the API server alone: what runs is watched, what is learnt is fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from blake3 import blake3

from .kube import Namespace, wait_for
from .test_digits import gone, long_task

ROUNDS = 80
"""So many that it still goes on when everything was asked of it."""
SIGNATURES = {"png": b"\x89PNG", "svg": b"<?xml"}


def collective(lab: Namespace, *arguments: str, code: int = 0, folder: Path | None = None) -> str:
    """Run a command; what it printed."""
    command = [sys.executable, "-m", "collective_operator", *arguments, "-n", lab.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=folder)
    assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def rounds_of(folder: Path) -> list[int]:
    return [json.loads(line)["round"] for line in (folder / "rounds.jsonl").read_text().splitlines()]


def digest(path: Path) -> str:
    return f"blake3:{blake3(path.read_bytes()).hexdigest()}"


def test_watched_steered_and_fetched(lab: Namespace, system: Namespace, tmp_path: Path) -> None:
    task = long_task("told")
    task["spec"]["rounds"] = ROUNDS
    lab.apply(task)
    # The files of the first two are written beside the third.
    wait_for("three rounds", lambda: lab.rounds_decided("told") >= 3, seconds=180)
    assert "told" in collective(lab, "list")
    command = [sys.executable, "-m", "collective_operator", "watch", "told", "-n", lab.name, "-o", "json"]
    with subprocess.Popen([*command, "--every", "0.5"], stdout=subprocess.PIPE, text=True, env={**os.environ}) as watch:
        assert watch.stdout is not None
        lines = (json.loads(line) for line in watch.stdout)
        seen = [next(line for line in lines if line["event"] == "round")["record"]["round"]]

        now = tmp_path / "now"
        collective(lab, "results", "told", "-o", str(now))
        assert rounds_of(now)[:2] == [1, 2] and (now / "model.safetensors").stat().st_size > 0
        assert not (now / "result.json").exists(), "it has not ended"
        assert "proposed" in collective(lab, "logs", "told", "--tail", "50")
        assert collective(lab, "logs", "told", "learner-1", "--tail", "5")

        collective(lab, "abort", "told", "-m", "enough seen")
        rest = list(lines)
        assert watch.wait(60) == 1
    seen += [line["record"]["round"] for line in rest if line["event"] == "round"]
    assert seen == sorted(set(seen)), "each round once, in order"
    assert rest[-1]["result"]["message"] == "enough seen"

    # Its coordinator's pod is gone: a pod reads the volume, and is gone as well.
    wait_for("no pod", lambda: not lab.uids("collectivelearning.dev/task=told") or None, seconds=180)
    left = tmp_path / "left"
    told = collective(lab, "results", "told", "-o", str(left))
    assert "reads its volume" in told
    assert rounds_of(left) == list(range(1, len(rounds_of(left)) + 1)) and len(rounds_of(left)) >= max(seen)
    assert not [name for name in pods(lab) if name.startswith("told-results-")]

    collective(lab, "retry", "told")
    wait_for("another try", lambda: lab.get("ctask", "told")["status"]["phase"] != "Failed", seconds=60)
    watched = collective(lab, "watch", "told", "-o", "plain", "--every", "0.5")
    assert watched.splitlines()[-1].startswith(f"Complete: {ROUNDS} rounds")
    final = tmp_path / "final"
    collective(lab, "results", "told", "-o", str(final))
    assert rounds_of(final) == list(range(1, ROUNDS + 1)), "it went on after its last round"
    assert (final / "rounds.jsonl").read_bytes().startswith((left / "rounds.jsonl").read_bytes())
    result: dict[str, Any] = json.loads((final / "result.json").read_text())
    assert (result["phase"], result["digest"]) == ("Complete", digest(final / "model.safetensors"))
    assert (final / "rounds.png").read_bytes().startswith(SIGNATURES["png"])
    collective(lab, "plot", "told", "-o", "told.svg", folder=tmp_path)
    assert (tmp_path / "told.svg").read_bytes().startswith(SIGNATURES["svg"])
    gone(lab, "told")


def pods(lab: Namespace) -> list[str]:
    return lab.kubectl("get", "pods", "-o", "name").replace("pod/", "").split()
