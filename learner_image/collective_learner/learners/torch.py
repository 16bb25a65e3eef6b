"""A learner around a PyTorch model, its optimizer and its data loaders.

The constructor is the one that users of Fetch.ai colearn know. What differs: a loss is the mean over examples, not over
batches; a loader of a single batch works; weights travel by name, buffers (BatchNorm's statistics) among them; and
proposing and testing put everything back, see `torch_keep`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
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
from collective_learner.learners.torch_keep import Kept, left_as_it_was, seed_from, showing
from collective_learner.learners.torch_state import (
    each_array,
    form_of,
    load_arrays,
    named_tensors,
    to_arrays,
    to_device,
)
from collective_learner.mli import (
    TrainingSummary,
    Weights,
)

if TYPE_CHECKING:
    from collective_learner.export.exporter import Exporter
    from collective_learner.mli import Array, DiffPrivConfig
    from collective_learner.privacy.torch_dp import PrivateTraining

Criterion = Callable[[Any, Any], Any]
"""From a model's outputs and the labels to one number: the mean over the batch."""


def categorical_accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose highest output is that of their label."""
    return float((outputs.argmax(dim=1) == labels).float().mean())


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
    ) -> None:
        if criterion is None:
            raise ValueError("criterion: None, a loss is needed to train with")
        self.criterion = criterion
        self.vote_criterion = vote_criterion or criterion
        self.test_criterion = test_criterion or self.vote_criterion
        criteria = {"criterion": criterion, "vote_criterion": vote_criterion, "test_criterion": test_criterion}
        for name, each in criteria.items():
            if (reduction := _reduction(each)) not in ("mean", "sum"):
                raise ValueError(f"{name}: its reduction must be 'mean' or 'sum', it is {reduction!r}")
        self.minimise_criterion = minimise_criterion
        super().__init__()
        self.need_reset_optimizer = need_reset_optimizer
        for name, most in (("num_train_batches", num_train_batches), ("num_test_batches", num_test_batches)):
            if most is not None:
                whole_number(name, most, at_least=1)
        self.num_train_batches, self.num_test_batches = num_train_batches, num_test_batches
        self.train_loader, self.vote_loader, self.test_loader = train_loader, vote_loader, test_loader
        loaders = {"train_loader": train_loader, "vote_loader": vote_loader, "test_loader": test_loader}
        for name, loader in loaders.items():
            if _length(loader) == 0:
                raise ValueError(f"{name}: no batches; at least one is needed")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        named_tensors(model)  # refuses what cannot travel
        self.model = model.to(self.device)
        self.optimizer = optimizer
        optimizer.load_state_dict(optimizer.state_dict())  # moves what an earlier training left to the device
        self._first_optimizer_state = copy.deepcopy(optimizer.state_dict())
        self._form = form_of(self.model)
        with self._untouched() as kept:
            self.vote_score = self._score("vote_loader", self.vote_loader, self.vote_criterion)
            self._lend = kept.unwritten(self.model.parameters())
            self._private = None if diff_priv_config is None else self._privately(diff_priv_config, privacy_folder)

    def mli_propose_weights(self) -> Weights:
        """Train, return the weights, and put everything back as it was.

        Where the privacy budget does not last for it there is no training: the current weights are returned, with
        DP_BUDGET_EXCEEDED in their summary.
        """
        self._stop.clear()
        if self._private is not None and (refusal := self._private.spending.refusal()) is not None:
            return Weights(weights=to_arrays(self.model), training_summary=refusal)
        finite = frozenset(name for name, array in each_array(self.model) if is_finite(array))
        with self._untouched() as kept:
            seed_from(fingerprint(each_array(self.model)), self.options.round, self._loaders)
            start = self._first_optimizer_state if self.need_reset_optimizer else self.optimizer.state_dict()
            # Copied, because an optimizer trains on in the very tensors that it loads.
            self.optimizer.load_state_dict(copy.deepcopy(start))
            summary = self._train(kept)
            weights = kept.exchange(self.model)
            refuse_diverged(weights, finite=finite)
            if not self.need_reset_optimizer:
                self._proposed = (fingerprint(weights), self.optimizer.state_dict())
        return Weights(weights=weights, training_summary=summary)

    def mli_get_current_weights(self) -> Weights:
        """Return a copy of the weights."""
        return Weights(weights=to_arrays(self.model))

    def exporter(self) -> Exporter:
        """Give the model to be exported, with the inputs of a batch that it votes on."""
        from collective_learner.export.torch import TorchExporter  # noqa: PLC0415 - only whoever exports needs it

        with self._untouched():
            inputs, _ = next(self._batches("vote_loader", self.vote_loader, 1, again=False))
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

    def _privately(self, config: DiffPrivConfig, folder: str | os.PathLike[str] | None) -> PrivateTraining:
        try:
            from collective_learner.privacy.torch_dp import PrivateTraining  # noqa: PLC0415 - needs an extra of its own
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "opacus":
                raise
            raise ValueError(
                "diff_priv_config: opacus is needed; pip install 'collective-operator[torch-dp]' brings it"
            ) from error
        return PrivateTraining(
            self.model,
            self.optimizer,
            self.train_loader,
            self.criterion,
            config,
            steps=self.num_train_batches,
            folder=folder,
        )

    def _train(self, kept: Kept) -> TrainingSummary:
        self.model.train()
        if self._private is not None:
            mu = self.options.proximal_mu
            return self._private.train(
                kept,
                device=self.device,
                go_on=self._go_on,
                pull_back=(lambda: _pull_back(self.model, kept, mu)) if mu else None,
            )
        total, seen = torch.zeros((), dtype=torch.float64, device=self.device), 0
        passes: list[int] = []
        batches = self._batches(
            "train_loader", self.train_loader, self.num_train_batches, again=True, at_end=lambda: passes.append(seen)
        )
        for inputs, labels in batches:
            self._go_on()
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.criterion(self.model(inputs), labels)
            loss.backward()
            if self.options.proximal_mu:
                _pull_back(self.model, kept, self.options.proximal_mu)
            self.optimizer.step()
            total += loss.detach() * _weight(self.criterion, labels)  # on the device: no waiting for each batch
            seen += len(labels)
        # What the training set holds, however many of them this training saw, or saw again.
        examples = _examples(self.train_loader)
        if examples is None:
            examples = passes[0] if passes else seen
        return TrainingSummary(examples=examples, metrics={"loss": float(total) / seen})

    def _test_score(self) -> float:
        return 0.0 if self.test_loader is None else self._score("test_loader", self.test_loader, self.test_criterion)

    def _load(self, arrays: Mapping[str, Array]) -> None:
        load_arrays(self.model, arrays)

    def _go_on_with(self, optimizer: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(optimizer)

    @torch.no_grad()
    def _score(self, name: str, loader: Iterable[Any], criterion: Criterion) -> float:
        self.model.eval()
        total, seen = 0.0, 0
        for inputs, labels in self._batches(name, loader, self.num_test_batches, again=False):
            outputs = self.model(inputs)
            if isinstance(outputs, torch.Tensor) and bool(torch.isnan(outputs).any()):
                return float("nan")  # an accuracy would take them for class 0
            total += float(criterion(outputs, labels)) * _weight(criterion, labels)
            seen += len(labels)
        return total / seen

    def _batches(
        self,
        name: str,
        loader: Iterable[Any],
        most: int | None,
        *,
        again: bool,
        at_end: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Any, torch.Tensor]]:
        """Give batches on the device; with `again` exactly `most` of them, if that is told, else at most."""
        given = 0
        while True:
            before = given
            for batch in islice(loader, None if most is None else most - given):
                if not isinstance(batch, tuple | list) or len(batch) != 2:
                    raise ValueError(f"{name}: a {type(batch).__name__}; pairs (inputs, labels) are needed")
                given += 1
                inputs, labels = to_device(batch, self.device)
                yield inputs, labels
            if given == before:
                raise ValueError(f"{name}: no batches; at least one is needed")
            at_end()
            if most is None or not again or given >= most:
                return


@torch.no_grad()
def _pull_back(model: torch.nn.Module, kept: Kept, mu: float) -> None:
    """Add the gradient of FedProx's proximal term; a parameter that took no part is where it was."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            # In this order a sparse gradient becomes a dense one, as the whole term is.
            parameter.grad = (parameter - kept.value(parameter)).mul_(mu).add_(parameter.grad)


def _examples(loader: object) -> int | None:
    """Return how many examples a loader goes through: a sampler may choose fewer than there are."""
    for part in ("sampler", "dataset"):
        if (length := _length(getattr(loader, part, None))) is not None:
            return length
    return None


def _weight(criterion: Criterion, labels: torch.Tensor) -> int:
    """Return the factor of a batch's score: sums of such scores, by examples, are means over examples."""
    return 1 if _reduction(criterion) == "sum" else len(labels)


def _reduction(criterion: object) -> str:
    """Return the reduction of a loss of torch.nn; any other criterion gives means."""
    return str(getattr(criterion, "reduction", "mean"))


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:  # a stream: it has no length
        return None
