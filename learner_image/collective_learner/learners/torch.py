"""A learner around a PyTorch model, its optimizer and its data loaders.

The constructor is the one that users of Fetch.ai colearn know. What differs: a loss is the mean over examples, not over
batches; a loader of a single batch works; weights travel by name, buffers (BatchNorm's statistics) among them; several
GPUs train one model, see `ddp`; and proposing and testing put everything back, see `torch_keep`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from collective_learner.learners.checks import whole_number
from collective_learner.learners.common import (
    fingerprint,
    has_nan,
    is_finite,
)
from collective_learner.learners.judging import JudgingLearner
from collective_learner.learners.steered import refuse_diverged
from collective_learner.learners.torch_batches import Feed, batches_of
from collective_learner.learners.torch_checks import (
    check_criteria,
    check_loaders,
    check_model,
    explained,
    one_number,
)
from collective_learner.learners.torch_devices import devices_of, memory_named, usable
from collective_learner.learners.torch_keep import Kept, left_as_it_was, same_randomness, seed_from, showing
from collective_learner.learners.torch_private import private_training, train_privately
from collective_learner.learners.torch_state import (
    each_array,
    form_of,
    load_arrays,
    named_tensors,
    to_array,
    to_arrays,
    to_device,
)
from collective_learner.learners.torch_step import (
    PRECISIONS,
    Criterion,
    calculating,
    categorical_accuracy,
    pull_back,
    train_step,
    weight_of,
)
from collective_learner.mli import (
    TrainingSummary,
    Weights,
)

if TYPE_CHECKING:
    from collective_learner.export.exporter import Exporter
    from collective_learner.learners.ddp.ranks import Ranks
    from collective_learner.mli import Array, DiffPrivConfig
    from collective_learner.privacy.torch_dp import PrivateTraining

__all__ = ["Criterion", "PytorchLearner", "categorical_accuracy"]


_Trained = tuple[dict[str, "Array"], TrainingSummary, dict[str, Any] | None]
"""What came of a training: weights, what is told of it, and the optimizer, should it be wanted again."""


class PytorchLearner(JudgingLearner[dict[str, Any]]):
    """A learner for PyTorch models.

    FedProx's proximal term, over the parameters that are trained, enters the gradient of each batch: that of
    ``mu / 2 * |w - w0|^2`` is ``mu * (w - w0)``, and needs no graph of its own. The loss that is told is without it.

    A model may change its parameters while it scores. Whether it does is found out once, with its first weights; where
    it does not, it scores others in the very memory that they arrived in.

    Parameters
    ----------
    model
        Moved to `device`. Tied weights travel once; bfloat16 travels as float32.
    optimizer
        Over the model's parameters.
    train_loader, vote_loader, test_loader
        Each gives pairs (inputs, labels) of tensors. Without `test_loader` the test score is 0.
    need_reset_optimizer
        Every training starts with the optimizer as it was given. When False it goes on from the last proposal of this
        learner that was accepted.
    device
        By default the GPU when there is one.
    criterion
        The loss to train with, and to vote on unless `vote_criterion` is given. One with ``reduction="sum"`` is divided
        by the number of examples.
    minimise_criterion
        Whether a lower score is the better one in a vote.
    vote_criterion
        What the vote is about.
    num_train_batches
        Batches in a proposal, going through the loader again where it has fewer. By default all of them, once.
    num_test_batches
        Most batches to vote or test on. By default all of them.
    diff_priv_config
        Train by DP-SGD within this budget, see `collective_learner.privacy`; needs the extra ``torch-dp``. Batches are
        then drawn by Poisson sampling, the same number of them and of the same size on average, a training does not
        repeat bit by bit, and no loss is told.
    test_criterion
        What the test score tells, for watching only. By default that of the vote.
    privacy_folder
        Where the ledger of what is spent is kept, a folder for this data set alone; by default where the environment
        variable COLLECTIVE_STATE_DIR says.
    devices
        How many GPUs, or processes on a CPU, train one proposal together: each takes its piece of every batch, and what
        comes of it is that of one device. By default as many GPUs as the task gives a served learner, else one. With
        several, model, optimizer and criterion are pickled, so they are made of what stands at the top level of
        modules; scoring stays on the first.
    precision
        ``float32``, or ``bf16`` for mixed precision: the model and the criteria calculate under PyTorch's autocast, in
        training and in scoring, and the weights stay as they are. Not with `diff_priv_config`.

    Raises
    ------
    ValueError
        For arguments that do not fit together, an empty loader, or a tensor that cannot travel; the message names it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        train_loader: Iterable[Any],
        vote_loader: Iterable[Any],
        test_loader: Iterable[Any] | None = None,
        need_reset_optimizer: bool = True,
        device: str | torch.device | None = None,
        criterion: Criterion | None = None,
        minimise_criterion: bool = True,
        vote_criterion: Criterion | None = None,
        num_train_batches: int | None = None,
        num_test_batches: int | None = None,
        diff_priv_config: DiffPrivConfig | None = None,
        test_criterion: Criterion | None = None,
        privacy_folder: str | os.PathLike[str] | None = None,
        devices: int | None = None,
        precision: str = "float32",
    ) -> None:
        if criterion is None:
            raise ValueError("criterion: None, a loss is needed to train with")
        self.criterion = criterion
        self.vote_criterion = vote_criterion or criterion
        self.test_criterion = test_criterion or self.vote_criterion
        criteria = {"criterion": criterion, "vote_criterion": vote_criterion, "test_criterion": test_criterion}
        check_criteria(criteria)
        self.minimise_criterion = minimise_criterion
        if precision not in PRECISIONS:
            raise ValueError(f"precision: {precision!r}, one of {', '.join(PRECISIONS)} is needed")
        if precision != "float32" and diff_priv_config is not None:
            raise ValueError(
                f"diff_priv_config: with precision {precision!r}; the gradients of single examples are clipped in "
                "float32, so precision 'float32' is needed"
            )
        self.precision = precision
        super().__init__()
        self.need_reset_optimizer = need_reset_optimizer
        for name, most in (("num_train_batches", num_train_batches), ("num_test_batches", num_test_batches)):
            if most is not None:
                whole_number(name, most, at_least=1)
        self.num_train_batches, self.num_test_batches = num_train_batches, num_test_batches
        self.train_loader, self.vote_loader, self.test_loader = train_loader, vote_loader, test_loader
        loaders = {"train_loader": train_loader, "vote_loader": vote_loader, "test_loader": test_loader}
        check_loaders(loaders)
        check_model(model, optimizer)
        chosen = devices_of(device, devices)
        if len(chosen) > 1 and diff_priv_config is not None:
            raise ValueError(
                f"diff_priv_config: with {len(chosen)} devices; noise, and who is in a batch, must be drawn in one "
                "place, so one device is needed: devices=1, or gpus.count: 1 in a task"
            )
        self.device = usable(chosen[0])
        self.model = model.to(self.device)
        self.optimizer = optimizer
        optimizer.load_state_dict(optimizer.state_dict())  # moves what an earlier training left to the device
        self._first_optimizer_state = copy.deepcopy(optimizer.state_dict())
        self._form = form_of(self.model)
        self._ranks: Ranks | None = None
        if len(chosen) > 1:
            from collective_learner.learners.ddp.ranks import Ranks  # noqa: PLC0415 - one device needs none of it

            self._ranks = Ranks(self.model, optimizer, criterion, chosen, precision)
        with self._untouched() as kept:
            self.vote_score = self._score("vote_loader", self.vote_loader, self.vote_criterion)
            self._lend = kept.unwritten(self.model.parameters())
            self._private: PrivateTraining | None = None
            if diff_priv_config is not None:
                self._private = private_training(
                    self.model,
                    optimizer,
                    train_loader,
                    criterion,
                    diff_priv_config,
                    steps=num_train_batches,
                    folder=privacy_folder,
                )

    def mli_propose_weights(self) -> Weights:
        """Train, return the weights, and put everything back as it was.

        Where the privacy budget does not last for it there is no training: the current weights are returned, with
        DP_BUDGET_EXCEEDED in their summary.
        """
        self._stop.clear()
        if self._private is not None and (refusal := self._private.spending.refusal()) is not None:
            return Weights(weights=to_arrays(self.model), training_summary=refusal)
        finite = frozenset(name for name, array in each_array(self.model) if is_finite(array))
        start = self._first_optimizer_state if self.need_reset_optimizer else self.optimizer.state_dict()
        trained = self._train_here(start) if self._ranks is None else self._train_on(self._ranks, start)
        weights, summary, optimizer = trained
        refuse_diverged(weights, finite=finite)
        if optimizer is not None:
            self._proposed = (fingerprint(weights), optimizer)
        return Weights(weights=weights, training_summary=summary)

    def mli_get_current_weights(self) -> Weights:
        """Return a copy of the weights."""
        return Weights(weights=to_arrays(self.model))

    def exporter(self) -> Exporter:
        """Give the model to be exported, with the inputs of a batch that it votes on."""
        from collective_learner.export.torch import TorchExporter  # noqa: PLC0415 - only whoever exports needs it

        with self._untouched():
            inputs, _ = to_device(next(batches_of("vote_loader", self.vote_loader, 1, again=False)), self.device)
        return TorchExporter(self.model, inputs, self.criterion, self._safetensors)

    def _safetensors(self) -> bytes:
        """Write the weights, in the model's own types."""
        from safetensors.torch import save  # noqa: PLC0415 - only whoever wants a file pays for it

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named_tensors(self.model).items()}
        return bytes(save(tensors))

    @property
    def _loaders(self) -> list[object]:
        return [self.train_loader, self.vote_loader, self.test_loader]

    def _untouched(self) -> AbstractContextManager[Kept]:
        return left_as_it_was(self.model, self.optimizer, self._loaders)

    def _showing(self, arrays: Mapping[str, Array]) -> AbstractContextManager[None]:
        return showing(self.model, arrays, self._loaders, lend=self._lend)

    def _vote_score(self, arrays: Mapping[str, Array]) -> float:
        score = self._score("vote_loader", self.vote_loader, self.vote_criterion)
        return float("nan") if has_nan(arrays) else score

    def _train_here(self, start: dict[str, Any]) -> _Trained:
        """Train in the model's own tensors."""
        with self._untouched() as kept:
            seed_from(fingerprint(each_array(self.model)), self.options.round, self._loaders)
            # Copied, because an optimizer trains on in the very tensors that it loads.
            self.optimizer.load_state_dict(copy.deepcopy(start))
            summary = self._train(kept)
            weights = kept.exchange(self.model)
            return weights, summary, None if self.need_reset_optimizer else self.optimizer.state_dict()

    def _train(self, kept: Kept) -> TrainingSummary:
        self.model.train()
        mu = self.options.proximal_mu
        pull = (lambda: pull_back(self.model, kept.value, mu)) if mu else None
        if self._private is not None:
            return train_privately(self._private, kept, self.device, go_on=self._go_on, count=self._count, pull=pull)
        total, feed = torch.zeros((), dtype=torch.float64, device=self.device), self._feed()
        with memory_named(self.device, lambda: feed.batch_size):
            for batch in feed:
                inputs, labels = to_device(batch, self.device)
                with explained("train_loader", inputs, labels):
                    loss = train_step(
                        self.model, self.optimizer, self.criterion, inputs, labels, precision=self.precision, pull=pull
                    )
                total += loss * weight_of(self.criterion, labels)  # on the device: no waiting for each batch
            return feed.summary(float(total))

    def _train_on(self, ranks: Ranks, start: dict[str, Any]) -> _Trained:
        """Train in other processes, and leave the model alone."""
        feed = self._feed()
        with same_randomness(self._loaders):
            trained = ranks.train(
                feed,
                optimizer=start,
                seed=seed_from(fingerprint(each_array(self.model)), self.options.round, self._loaders),
                proximal_mu=self.options.proximal_mu,
                keep_optimizer=not self.need_reset_optimizer,
                go_on=self._go_on,
            )
        weights = {name: to_array(tensor) for name, tensor in trained.weights.items()}
        return weights, feed.summary(trained.loss), trained.optimizer

    def _feed(self) -> Feed:
        return Feed(self.train_loader, self.num_train_batches, before=self._go_on, after=self._count)

    def _test_score(self) -> float:
        return 0.0 if self.test_loader is None else self._score("test_loader", self.test_loader, self.test_criterion)

    def _load(self, arrays: Mapping[str, Array]) -> None:
        load_arrays(self.model, arrays)

    def _go_on_with(self, optimizer: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(optimizer)

    @torch.no_grad()
    def _score(self, name: str, loader: Iterable[Any], criterion: Criterion) -> float:
        self.model.eval()
        total, seen, size = 0.0, 0, 0
        with memory_named(self.device, lambda: size):
            for batch in batches_of(name, loader, self.num_test_batches, again=False):
                size = len(batch[1])
                inputs, labels = to_device(batch, self.device)
                with explained(name, inputs, labels), calculating(self.precision, self.device):
                    outputs = self.model(inputs)
                    if isinstance(outputs, torch.Tensor) and bool(torch.isnan(outputs).any()):
                        return float("nan")  # an accuracy would take them for class 0
                    total += float(one_number(criterion(outputs, labels))) * weight_of(criterion, labels)
                seen += size
        return total / seen
