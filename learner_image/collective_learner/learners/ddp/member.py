"""One rank as the learner has it: its process, the way to it, and how it came to its end."""

from __future__ import annotations

import multiprocessing.process
import os
import signal
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import reduction

import torch.multiprocessing

from collective_learner.learners.ddp.channel import Channel, memory_file
from collective_learner.learners.ddp.place import Place
from collective_learner.learners.ddp.process import main
from collective_learner.learners.ddp.rank import Failed, Trained

_GONE_S = 10.0
"""How long a process may take to go once it is killed."""


class RankFailedError(RuntimeError):
    """A process that trains on one of several devices failed or ended; the learner is as it was before."""


class FailedMemberError(Exception):
    """A rank said that it failed; without its words, it has gone."""

    def __init__(self, member: Member, failed: Failed | None = None) -> None:
        super().__init__()
        self.member, self.failed = member, failed


@dataclass(slots=True)
class Member:
    """A rank."""

    place: Place
    process: multiprocessing.process.BaseProcess
    channel: Channel
    meeting: tempfile.TemporaryDirectory[str]
    """Where ranks find each other."""
    working: bool = True
    """Whether it starts, or trains."""
    answer: Trained | None = None

    def __str__(self) -> str:
        return _words(self.place)

    def take(self) -> None:
        """Take what it says.

        Raises
        ------
        FailedMemberError
            It failed.
        ClosedError
            It has gone.
        """
        message = self.channel.take()
        if isinstance(message, Failed):
            raise FailedMemberError(self, message)
        if isinstance(message, Trained):
            self.working, self.answer = False, message

    def ending(self, within: float) -> str:
        """Say how its process ended, which it has, or is about to."""
        self.process.join(within)
        status = self.process.exitcode
        if status is None or status >= 0:
            return f"{self} ended with status {status}; its last words are in the log"
        name = signal.Signals(-status).name
        why = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        return f"{self} was ended by {name}{why}"


def start(place: Place, meeting: tempfile.TemporaryDirectory[str]) -> Member:
    """Start a rank.

    Raises
    ------
    RankFailedError
        The system lets nobody start.
    """
    context = torch.multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    outgoing, incoming = memory_file(), memory_file()
    channel = Channel(near, outgoing, incoming)
    process = context.Process(target=main, args=(place, far), name=f"rank-{place.rank}", daemon=True)
    try:
        process.start()
        far.close()
        for descriptor in (outgoing, incoming):
            reduction.send_handle(near, descriptor, process.pid)
    except OSError as error:
        if process.pid is not None:
            process.kill()
        channel.close()
        raise RankFailedError(f"{_words(place)}: no process could be started for it: {error}") from error
    return Member(place, process, channel, meeting)


def end(members: Iterable[Member], starter: int) -> None:
    """End ranks, whatever they do.

    Parameters
    ----------
    starter
        The process that started them; in one that it forked nothing happens.
    """
    if os.getpid() != starter:
        return
    for member in members:
        member.process.kill()
    for member in members:
        member.process.join(_GONE_S)
        member.channel.close()
        member.meeting.cleanup()


def _words(place: Place) -> str:
    return f"device {place.rank + 1} of {place.count} ({place.device})"
