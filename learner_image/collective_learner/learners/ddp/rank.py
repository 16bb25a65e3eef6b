"""One rank: the model on one device, trained on its piece of each batch in step with the other ranks.

Weights come to rank 0 alone and go from there to the others, GPU to GPU. Every rank then takes the same steps from the
same averaged gradients, so that at the end any of them could tell the new weights; rank 0 does.

A rank whose work fails says so and waits for its end. If it went, the others' connections to it would break, and what
they say of that would cover up what happened.
"""

from __future__ import annotations

import contextlib
import io
import random
import threading
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from collective_learner.learners.common import derive_seed
from collective_learner.learners.ddp.batch_norm import over_all_ranks
from collective_learner.learners.ddp.channel import Channel, ClosedError
from collective_learner.learners.ddp.pieces import Piece
from collective_learner.learners.ddp.place import Place
from collective_learner.learners.memory import is_out_of_memory
from collective_learner.learners.torch_devices import memory_in_words
from collective_learner.learners.torch_state import all_tensors, named_tensors
from collective_learner.learners.torch_step import Criterion, pull_back, train_step

_TOGETHER = timedelta(minutes=10)
"""How long ranks may wait for each other in one operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a rank is made of, as it was saved."""

    saved: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A training begins."""

    tensors: dict[str, torch.Tensor]
    """All tensors of the model by name; none for ranks other than 0."""
    optimizer: dict[str, Any]
    seed: int
    proximal_mu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A training ends."""

    tell: bool
    """Whether anybody wants to know what came of it."""
    optimizer: bool = False
    """And the state of the optimizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training has ended, or a rank is ready for its first."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of rank 0, where they are wanted."""
    loss: float = 0.0
    """The sum over batches of their losses times their weights."""
    optimizer: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A rank can do no more."""

    what: str
    traceback: str = ""
    out_of_memory: bool = False
    memory: str = ""
    batch_size: int | None = None


def work(place: Place, channel: Channel) -> None:
    """Train whenever the learner asks for it."""
    device = torch.device(place.device)
    rank: _Rank | None = None
    try:
        rank = _Rank(place, device, channel.receive())
        channel.send(Trained())
        while True:
            channel.send(rank.train(channel.receive(), channel))
    except ClosedError:
        return
    except BaseException as error:  # noqa: BLE001 - a model's and a criterion's own code: the learner is told of all
        failed = Failed(
            what=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
            out_of_memory=is_out_of_memory(error),
            memory=memory_in_words(device),
            batch_size=None if rank is None else rank.batch_size,
        )
    with contextlib.suppress(ClosedError):
        channel.send(failed)
        threading.Event().wait()


class _Rank:
    def __init__(self, place: Place, device: torch.device, parts: Parts) -> None:
        self._place, self._device = place, device
        self.batch_size: int | None = None
        """Examples in the batch whose piece came last."""
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.set_num_threads(place.threads)
        # Saved by the learner a moment ago; it may hold anything, as the learner does. What is on a CPU there stays so.
        file = io.BytesIO(parts.saved.numpy().tobytes())
        loaded = torch.load(file, map_location={"cuda:0": place.device}, weights_only=False)
        self._optimizer: torch.optim.Optimizer = loaded["optimizer"]
        self._criterion: Criterion = loaded["criterion"]
        self._precision: str = loaded["precision"]
        self._model = over_all_ranks(loaded["model"], device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=Path(place.meeting).as_uri(),
            rank=place.rank,
            world_size=place.count,
            timeout=_TOGETHER,
        )
        # A model may leave parameters out for some batches, as it may on one device. And with this the gradients are
        # summed in the same order in every training, first or not: it keeps DDP from arranging them anew.
        self._parallel = DistributedDataParallel(self._model, find_unused_parameters=True)

    def train(self, begin: Begin, channel: Channel) -> Trained:
        self._start(begin)
        kept: dict[int, torch.Tensor] = {}
        if begin.proximal_mu:
            kept = {id(each): each.detach().clone() for each in self._model.parameters()}

        def pull() -> None:
            pull_back(self._model, lambda parameter: kept[id(parameter)], begin.proximal_mu)

        total = torch.zeros((), dtype=torch.float64, device=self._device)
        while isinstance(piece := channel.receive(self._device), Piece):
            self.batch_size = piece.batch
            loss = train_step(
                self._parallel,
                self._optimizer,
                self._criterion,
                piece.inputs,
                piece.labels,
                precision=self._precision,
                scale=piece.share * self._place.count,  # the gradient that DDP gives is the mean over ranks
                pull=pull if kept else None,
            )
            total += loss * (piece.share * piece.weight)
        return self._end(piece, total)

    @torch.no_grad()
    def _start(self, begin: Begin) -> None:
        for name, tensor in all_tensors(self._model).items():
            if begin.tensors:
                tensor.copy_(begin.tensors[name])
            dist.broadcast(tensor.detach(), 0)
        self._optimizer.load_state_dict(begin.optimizer)
        seed = derive_seed(begin.seed, self._place.rank)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        self._model.train()

    def _end(self, end: End, total: torch.Tensor) -> Trained:
        self._optimizer.zero_grad(set_to_none=True)
        if not end.tell:
            return Trained()
        dist.all_reduce(total)
        if self._place.rank:
            return Trained()
        return Trained(
            weights={name: tensor.detach() for name, tensor in named_tensors(self._model).items()},
            loss=float(total),
            optimizer=self._optimizer.state_dict() if end.optimizer else None,
        )
