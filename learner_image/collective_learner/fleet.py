"""Several learners on one machine, each in a process of its own: frameworks keep global state, and one may crash.

They live and die together. The children are in process groups of their own, so that a Ctrl-C in the terminal reaches
the parent alone, which then asks each of them once to end; a second signal would tell them to hurry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence

_logger = logging.getLogger(__name__)

_KILL_AFTER_S = 5.0
"""Seconds beyond a child's own grace after which it is killed."""


async def run_together(commands: Sequence[Sequence[str]], *, grace_s: float) -> int:
    """Run programs until one ends or a signal comes, then end all of them.

    Parameters
    ----------
    commands
        The programs with their arguments.
    grace_s
        Seconds that they take to end, at most.

    Returns
    -------
    int
        The status of the one that ended by itself, 128 and the signal when it was killed; 0 after a signal to us.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    children: list[asyncio.subprocess.Process] = []
    try:
        for command in commands:
            children.append(await asyncio.create_subprocess_exec(*command, process_group=0))
        ends = {asyncio.ensure_future(child.wait()): index for index, child in enumerate(children)}
        stopped = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait((stopped, *ends), return_when=asyncio.FIRST_COMPLETED)
        if stopped in done:
            return 0
        index, status = min((ends[end], end.result()) for end in done if end in ends)
        status = status if status >= 0 else 128 - status
        _logger.error("the process of learner %d ended with status %d, ending the others", index, status)
        return status
    finally:
        await _end(children, grace_s=grace_s)


async def _end(children: Sequence[asyncio.subprocess.Process], *, grace_s: float) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
    try:
        async with asyncio.timeout(grace_s + _KILL_AFTER_S):
            await asyncio.gather(*(child.wait() for child in children))
    except TimeoutError:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await asyncio.gather(*(child.wait() for child in children))
