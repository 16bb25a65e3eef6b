"""``python tests/chaos``: run tasks under chaos, print the seed and what happened; exit status 1 if a rule was broken.

As root it begins again in a mount namespace of its own, so that the small file systems that it fills go with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Chaos
from history import check
from nursery import Nursery
from plan import Plan, draw
from tally import Tally

_INSIDE = "CHAOS_MOUNTS"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats the plan of another run")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--side-by-side", type=int, default=4, help="how many tasks run at the same time")
    parser.add_argument("--only", help="the name of the one task to run")
    parser.add_argument("--keep", type=Path, help="keep logs and journals here")
    arguments = parser.parse_args()
    disks = os.environ.get(_INSIDE) == "yes"
    if not disks and _can_mount():
        os.environ[_INSIDE] = "yes"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    print(f"SEED={arguments.seed} KILLS={arguments.kills} ROUNDS={arguments.rounds}", flush=True)
    if not disks:
        print("disks are not filled: that needs root, unshare and the right to mount", flush=True)
    plans = draw(seed=arguments.seed, kills=arguments.kills, rounds=arguments.rounds, disks=disks)
    plans = [plan for plan in plans if arguments.only in (None, plan.name)]
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    broken = asyncio.run(run(plans, directory, side_by_side=arguments.side_by_side))
    if broken:
        print(f"{len(broken)} of {len(plans)} tasks broke a rule: {', '.join(broken)}; see {directory}")
        raise SystemExit(1)
    if arguments.keep is None:
        shutil.rmtree(directory)
    print("no rule was broken")


async def run(plans: list[Plan], directory: Path, *, side_by_side: int) -> list[str]:
    """Run the plans, print the summary, and name the tasks that broke a rule."""
    tally, broken = Tally(), []
    places = asyncio.Semaphore(side_by_side)
    started = time.monotonic()

    async def one(plan: Plan) -> None:
        async with places:
            at = time.monotonic()
            findings = await Chaos(plan, directory / plan.name, nursery, tally).run(check)
            if findings:
                broken.append(plan.name)
            shape = f"{plan.strategy['type']}, {len(plan.foreign)} learners, {len(plan.faults)} faults"
            print(f"{plan.name}: {shape}: {time.monotonic() - at:.1f} s {'; '.join(findings) or 'sound'}", flush=True)

    async with Nursery() as nursery:
        await asyncio.gather(*(one(plan) for plan in plans))
        if nursery.running:
            broken.append(f"{nursery.running} processes are left over")
    seconds = time.monotonic() - started
    rows = {
        "rounds": tally.rounds,
        **dict(sorted(tally.faults.items())),
        "starts": tally.starts,
        "left out of a round": tally.left_out,
        **{f"slowest {role} after SIGTERM": f"{slowest:.2f} s" for role, slowest in tally.slowest_s.items()},
        "wall time": f"{seconds:.0f} s",
        "rounds per second": f"{tally.rounds / seconds:.1f}",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value:>10}")
    return broken


def _can_mount() -> bool:
    if os.geteuid() or shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
