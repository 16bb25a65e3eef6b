"""Starting and ending the processes that stand for containers.

Each has a process group of its own, so that a Ctrl-C in the terminal reaches `collective run` alone, which then ends
them in order, and so that whatever a program starts itself ends with it. `local_guard` covers the ends that are not in
order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_GUARD = str(Path(__file__).with_name("local_guard.py"))
_GUARD_COMMAND = (sys.executable, "-I", "-S", _GUARD)


class Guard:
    """The watcher process of one run, from the run's side."""

    def __init__(self) -> None:
        read_end, self._register = os.pipe()
        try:
            self._watcher = subprocess.Popen(  # noqa: S603 - our own program
                [*_GUARD_COMMAND, "watch"],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(read_end)

    async def start(
        self, command: Sequence[str], *, env: Mapping[str, str], directory: Path, log: IO[bytes]
    ) -> asyncio.subprocess.Process:
        """Start a program that ends, at the latest, with this process.

        Parameters
        ----------
        command
            Program and arguments.
        env
            The whole environment.
        directory
            The working directory.
        log
            Takes stdout and stderr.
        """
        return await asyncio.create_subprocess_exec(
            *_GUARD_COMMAND,
            "exec",
            str(self._register),
            str(os.getpid()),
            *command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=directory,
            start_new_session=True,
            pass_fds=(self._register,),
        )

    def ended(self, group: int) -> None:
        """Kill what a program that ended has left behind, and forget its group."""
        _signal_group(group, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._register, b"-%d\n" % group)

    def close(self) -> None:
        """End the watcher; it kills what it still has."""
        os.close(self._register)
        self._watcher.wait()


async def terminate(process: asyncio.subprocess.Process, *, grace: float) -> None:
    """Ask a program's group to end, and insist after `grace` seconds."""
    _signal_group(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        kill(process)
        await process.wait()


def kill(process: asyncio.subprocess.Process) -> None:
    """End a program's group at once."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGKILL)


def exit_code(returncode: int) -> int:
    """Translate Python's return code into a container's exit code: 128 + n for signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def _signal_group(group: int, number: signal.Signals) -> None:
    # Gone, or on macOS only zombies left: nobody there to be told.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
