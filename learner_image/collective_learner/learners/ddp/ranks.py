"""The learner's side of a training on several devices: starts the ranks, feeds them, and watches them.

Every wait looks at all ranks at once, and at whether the training is to stop. One that ended, or failed, ends them all:
what they hold is a copy, and the next training starts others. A training that is stopped leaves them running; each
finishes the pieces that it has, and is asked to forget what came of them.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from collective_learner.learners.ddp.batch_norm import refuse_unknown_batch_norm
from collective_learner.learners.ddp.channel import ClosedError
from collective_learner.learners.ddp.member import FailedMemberError, Member, RankFailedError, end, start
from collective_learner.learners.ddp.pieces import pieces_of
from collective_learner.learners.ddp.place import Place
from collective_learner.learners.ddp.rank import Begin, End, Failed, Parts, Trained
from collective_learner.learners.memory import out_of_memory
from collective_learner.learners.torch_state import all_tensors
from collective_learner.learners.torch_step import Criterion

_LOOK_S = 0.1
"""How often a wait looks whether the training is to stop."""
_READY_S = 300.0
"""How long ranks may take to start, or to finish the batches of a training that was stopped."""
_LAST_WORDS_S = 0.5


class Ranks:
    """The processes that train one model on several devices; they start with the first training.

    Parameters
    ----------
    model, optimizer, criterion
        As the learner has them; not touched.
    devices
        One for each rank.
    precision
        What they calculate in, see `torch_step`.

    Raises
    ------
    ValueError
        Something cannot be trained so, or cannot be sent to other processes; the message names it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Criterion,
        devices: Sequence[torch.device],
        precision: str,
    ) -> None:
        count = len(devices)
        if sys.platform == "win32":
            raise ValueError(f"devices: {count}; on Windows one is needed")
        if multiprocessing.current_process().daemon:
            raise ValueError(f"devices: {count}, but a daemon of multiprocessing may not start processes; daemon=False")
        own = {id(parameter) for parameter in model.parameters()}
        if any(id(each) not in own for group in optimizer.param_groups for each in group["params"]):
            raise ValueError("optimizer: it has parameters that are not the model's, which devices cannot share")
        refuse_unknown_batch_norm(model)
        self._model, self._criterion, self._devices = model, criterion, devices
        self._parts = {"model": model, "optimizer": optimizer, "criterion": criterion, "precision": precision}
        _saved(self._parts, count)
        self._members: list[Member] = []
        weakref.finalize(self, end, self._members, os.getpid())

    @property
    def pids(self) -> list[int | None]:
        """The ranks' processes; empty where none are running."""
        return [member.process.pid for member in self._members]

    def train(
        self,
        batches: Iterable[tuple[Any, torch.Tensor]],
        *,
        optimizer: dict[str, Any],
        seed: int,
        proximal_mu: float,
        keep_optimizer: bool,
        go_on: Callable[[], None],
    ) -> Trained:
        """Train from the model's weights, and tell what rank 0 has then.

        Parameters
        ----------
        batches
            Whole ones; each is split.
        optimizer
            The state to start with.
        seed
            Of the ranks' randomness.
        keep_optimizer
            Whether to tell the optimizer's state, too.
        go_on
            Raises when the training is to stop.

        Raises
        ------
        RankFailedError
            A rank failed or ended. All of them are ended then.
        TrainingOutOfMemoryError
            A rank's memory ran out, likewise.
        """
        begun = ended = False
        try:
            self._start()
            self._wait(lambda member: not member.working, go_on, within=_READY_S)
            begun = True
            for member in self._members:
                # To one of them: it tells the others, on their way from device to device.
                tensors = all_tensors(self._model) if member.place.rank == 0 else {}
                member.working = True
                member.channel.send(Begin(tensors=tensors, optimizer=optimizer, seed=seed, proximal_mu=proximal_mu))
            for inputs, labels in batches:
                pieces = pieces_of(inputs, labels, self._criterion, len(self._members))
                self._wait(lambda member: not member.channel.unread, go_on)
                for member, piece in zip(self._members, pieces, strict=True):
                    member.channel.send(piece, keep=True)
            ended = True
            self._tell(End(tell=True, optimizer=keep_optimizer))
            self._wait(lambda member: not member.working, go_on)
            answer, self._members[0].answer = self._members[0].answer, None  # it holds weights
            assert answer is not None  # noqa: S101 - it has answered
            return answer
        except (FailedMemberError, ClosedError) as failure:
            error = self._explained(failure)
        except BaseException:
            if begun and not ended:
                with contextlib.suppress(ClosedError):
                    self._tell(End(tell=False))
            raise
        self.close()
        raise error

    def close(self) -> None:
        """End all ranks."""
        end(self._members, os.getpid())
        self._members.clear()

    def _start(self) -> None:
        if self._members and all(member.process.is_alive() for member in self._members):
            return
        self.close()
        count = len(self._devices)
        parts = Parts(saved=_saved(self._parts, count))
        meeting = tempfile.TemporaryDirectory(prefix="collective-learner-")
        try:
            for rank, device in enumerate(self._devices):
                place = Place(
                    rank=rank,
                    count=count,
                    device=str(device),
                    meeting=str(Path(meeting.name, "ranks")),
                    threads=max(1, torch.get_num_threads() // count),
                )
                self._members.append(start(place, meeting))
        except BaseException:
            meeting.cleanup()
            self.close()
            raise
        for member in self._members:
            member.channel.send(parts)

    def _wait(self, done: Callable[[Member], bool], go_on: Callable[[], None], *, within: float | None = None) -> None:
        late = None if within is None else time.monotonic() + within
        while waited := [member for member in self._members if not done(member)]:
            go_on()
            if late is not None and time.monotonic() > late:
                raise FailedMemberError(waited[0], Failed(what=f"not ready within {within:g} s"))
            connections = {member.channel.connection: member for member in self._members}
            sentinels = {member.process.sentinel: member for member in self._members}
            ready = multiprocessing.connection.wait([*connections, *sentinels], _LOOK_S)
            for each in ready:
                if isinstance(each, Connection):
                    connections[each].take()
            for each in ready:
                if isinstance(each, int):
                    raise FailedMemberError(sentinels[each])

    def _tell(self, word: End) -> None:
        for member in self._members:
            member.channel.send(word)

    def _explained(self, failure: Exception) -> Exception:
        """Say what happened: a rank that ended by itself has others fail, who may be heard first."""
        ended = {member.process.sentinel: member for member in self._members}
        for sentinel in multiprocessing.connection.wait([*ended], _LAST_WORDS_S):
            assert isinstance(sentinel, int)  # noqa: S101 - nothing else was waited for
            return RankFailedError(ended[sentinel].ending(_LAST_WORDS_S))
        if not isinstance(failure, FailedMemberError) or failure.failed is None:
            return RankFailedError("the processes of the devices cannot be reached")
        member, failed = failure.member, failure.failed
        if failed.out_of_memory:
            told = RuntimeError(failed.what)
            return out_of_memory(told, batch_size=failed.batch_size, memory=f"{member}: {failed.memory}")
        error = RankFailedError(f"{member}: {failed.what}")
        error.add_note(failed.traceback)
        return error


def _saved(parts: Mapping[str, object], count: int) -> torch.Tensor:
    """Save what a rank is made of, in one piece: the optimizer's parameters are the model's."""
    try:
        return _bytes_of(parts)
    except Exception as error:  # whatever a class raises that is not made to be pickled
        for name, part in parts.items():
            try:
                _bytes_of(part)
            except Exception as own:  # as above
                raise ValueError(
                    f"{name}: it cannot be sent to the processes of {count} devices: {own}; what it is made of must "
                    "stand at the top level of a module"
                ) from own
        raise ValueError(f"{', '.join(parts)}: together they cannot be sent to other processes: {error}") from error


def _bytes_of(value: object) -> torch.Tensor:
    file = io.BytesIO()
    torch.save(value, file)
    return torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
