"""kill -9 at any moment, and full disks: nothing decided is lost, nothing is decided twice."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from itertools import pairwise

import pytest

OURS = {"extensions": True}
SEED = int(os.environ.get("CHAOS_SEED", "20"))
KILLS = int(os.environ.get("CHAOS_KILLS", "5"))


@pytest.mark.parametrize(("extensions", "kills"), [(True, KILLS), (False, 2)], ids=["ours", "original"])
def test_killed_at_random_moments(plain, coordinated, history_is_sound, extensions, kills):
    """From a seed: each start runs for some rounds and a little into the next, then is killed; the last ends."""
    print(f"CHAOS_SEED={SEED}")
    moments = random.Random(SEED)
    learners = plain(*[{"extensions": extensions, "size": 300_000, "train_s": 0.005}] * 3)
    task = coordinated(learners, rounds=100_000)
    decided = 0
    for _ in range(kills):
        # By progress and not by the clock, so that a slow machine gets as far.
        process = task.start()
        goal = decided + moments.randint(1, 4)
        while len(task.records()) < goal:
            assert process.poll() is None, task.log
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.0, 0.03))
        process.kill()
        process.wait(60)
        assert len(task.records()) >= goal, "a decided round has gone"
        decided = len(task.records())
    rounds = task.config["rounds"] = decided + 4
    task.run()
    history_is_sound(task, learners, rounds=rounds)
    for learner in learners:
        # A learner is told of each generation, and steps at most one at a time: none was skipped or applied twice.
        taken = [event["generation"] for event in learner.events("set", "accept")]
        assert all(after - before in (0, 1) for before, after in pairwise(taken))


def test_coordinator_and_learner_killed_together(plain, coordinated, wait_until, history_is_sound):
    learners = plain(*[{**OURS, "train_s": 0.02}] * 3)
    task = coordinated(learners, rounds=100_000)
    for victim in (0, 2):
        process = task.start()
        at = len(task.records())
        wait_until(lambda at=at: len(task.records()) >= at + 3, "three more rounds")
        learners[victim].kill()
        process.kill()
        process.wait(60)
        learners[victim].start()
    rounds = task.config["rounds"] = len(task.records()) + 3
    task.run()
    history_is_sound(task, learners, rounds=rounds)


def test_a_torn_newest_checkpoint_goes_back_one_and_says_so(plain, coordinated, history_is_sound):
    learners = plain(OURS, OURS)
    task = coordinated(learners, rounds=4)
    task.run()
    newest = sorted((task.state / "checkpoint").glob("round-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    (task.state / "verdict.json").unlink()
    task.run()
    assert "checkpoint round-00000004 cannot be used" in task.log
    assert "going on after round 3 of 4" in task.log
    history_is_sound(task, learners[:0], rounds=4)
    assert len(learners[0].events("train")) + len(learners[1].events("train")) == 5


def test_a_state_directory_that_is_none_fails_the_task(plain, coordinated):
    task = coordinated(plain(OURS), rounds=2)
    task.state.write_bytes(b"")
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "StorageFailed")


def test_files_that_may_not_grow_fail_the_task_and_leave_what_was_there(plain, coordinated, history_is_sound):
    """The limit of the file's size stands for any disk that takes no more amid a proposal."""
    learners = plain(*[{**OURS, "size": 1_000_000}] * 2)
    task = coordinated(learners, rounds=1)
    task.run()
    task.config["rounds"] = 3
    verdict = task.run(wrapper=("/bin/sh", "-c", 'ulimit -f 1000; exec "$@"', "sh"))
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "StorageFailed")
    assert "File too large" in verdict["message"]
    assert verdict["result"]["accepted"] == 1
    (task.state / "verdict.json").unlink()
    task.run()
    history_is_sound(task, learners, rounds=3)


PAGES = 245  # of the weights, in a file system that counts in pages


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small file system needs root and unshare"
)
@pytest.mark.parametrize(
    ("pages", "decided"),
    [
        pytest.param(PAGES, None, id="the-first-decision"),
        pytest.param(PAGES + 1 + 100, 0, id="amid-a-proposal"),
        pytest.param(2 * PAGES + 1, 0, id="a-decision"),
        pytest.param(2 * PAGES + 2, 1, id="the-history"),
    ],
)
def test_a_full_file_system_keeps_what_was_accepted(plain, coordinated, history_is_sound, pages, decided):
    """A file system of its own, full at a chosen write. With more room, the task goes on from what was kept."""
    learners = plain(*[{**OURS, "size": 1_000_000}] * 2)
    task = coordinated(learners, rounds=3)
    task.state.mkdir()
    kept = task.directory / "kept"
    script = (
        f"mount -t tmpfs -o size={pages * resource.getpagesize()} tmpfs {task.state}; "
        f'"$@"; status=$?; cp -a {task.state} {kept}; exit $status'
    )
    verdict = task.run(wrapper=("unshare", "--mount", "sh", "-c", script, "sh"))
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "StorageFailed"), verdict
    assert "No space left on device" in verdict["message"]
    if decided is None:
        assert verdict["result"] is None
    else:
        assert verdict["result"]["accepted"] == verdict["round"]["current"] == decided
    task.state.rmdir()
    kept.rename(task.state)
    (task.state / "verdict.json").unlink(missing_ok=True)
    assert task.run()["phase"] == "Complete"
    history_is_sound(task, learners, rounds=3)


@pytest.mark.timeout(600)
def test_peak_memory_is_flat_in_the_models_size(plain, coordinated):
    """200 MB to four learners: they cost the coordinator a window of a few parts."""
    learners = plain(*[{**OURS, "size": 200_000_000}] * 4)
    task = coordinated(learners, rounds=2)
    script = (
        "import os, resource, subprocess, sys\n"
        "status = subprocess.call(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=open(os.environ['PEAK'], 'w'))\n"
        "sys.exit(status)\n"
    )
    peak = task.directory / "peak"
    os.environ["PEAK"] = str(peak)
    try:
        verdict = task.run(wrapper=(sys.executable, "-c", script), patience_s=550)
    finally:
        del os.environ["PEAK"]
    assert verdict["round"]["accepted"] == 2
    megabytes = int(peak.read_text()) / 1024
    print(f"peak RSS {megabytes:.0f} MB")
    assert megabytes < 150
