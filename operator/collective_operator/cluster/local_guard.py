"""Sees to it that no process of a run outlives the run, however the run ends: also on ``kill -9``.

A program of its own, started by path with ``python -I -S`` so that it costs milliseconds, with two modes:

``exec FD PARENT PROGRAM...``
    Runs in each child before its program does: tells the watcher its process group, asks Linux to kill it when the
    parent dies, and becomes the program. Registering here, and not in the parent after the start, leaves no moment in
    which a parent's death would lose a child.
``watch``
    Runs once a run: reads groups (``+PID``, ``-PID``) from stdin. The end of stdin is the end of the run, because only
    the run holds the other end open; every group still there is killed, with all that the programs started themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(register: int, parent: int, program: list[str]) -> None:
    """Register with the watcher, and replace this process by the program."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - elsewhere the watcher does it alone

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # The parent died before the request to die with it was in force.
    os.write(register, b"+%d\n" % os.getpid())
    os.close(register)
    os.execvp(program[0], program)  # noqa: S606 - becoming another program is its purpose


def watch() -> None:
    """Follow the groups until the run is over, and kill what is left of them."""
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "exec":
        become(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        watch()
