"""A learner around a PyTorch model, its optimizer and its data loaders.

The constructor is the one that users of Fetch.ai colearn know. What differs: a loss is the mean over examples, not over
batches; a loader of a single batch works; weights travel by name, buffers (BatchNorm's statistics) among them; and
proposing and testing put everything back, see `torch_state`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from collective_learner.learners.checks import whole_number
from collective_learner.learners.common import (
    MODEL_FILE,
    fingerprint,
    has_nan,
    match_weights,
    verdict,
)
from collective_learner.learners.torch_state import (
    left_as_it_was,
    load_arrays,
    named_tensors,
    seed_from,
    to_arrays,
    to_device,
)
from collective_learner.mli import (
    ColearnModel,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    TrainingSummary,
    Weights,
)

Criterion = Callable[[Any, Any], Any]
"""From a model's outputs and the labels to one number: the mean over the batch."""


def categorical_accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose highest output is that of their label."""
    return float((outputs.argmax(dim=1) == labels).float().mean())


class PytorchLearner(MachineLearningInterface):
    """A learner for PyTorch models.

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
    test_criterion
        What the test score tells, for watching only. By default that of the vote.

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
        test_criterion: Criterion | None = None,
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
        # A training with need_reset_optimizer=False: the optimizer after it, should the proposal be accepted.
        self._proposed: tuple[bytes, dict[str, Any]] | None = None
        with self._untouched():
            self.vote_score = self._score("vote_loader", self.vote_loader, self.vote_criterion)

    def mli_propose_weights(self) -> Weights:
        """Train, return the weights, and put everything back as it was."""
        with self._untouched():
            seed_from(fingerprint(to_arrays(self.model)), self._loaders)
            if self.need_reset_optimizer:
                # Copied, because an optimizer trains on in the very tensors that it loads.
                self.optimizer.load_state_dict(copy.deepcopy(self._first_optimizer_state))
            summary = self._train()
            weights = to_arrays(self.model)
            if not self.need_reset_optimizer:
                self._proposed = (fingerprint(weights), copy.deepcopy(self.optimizer.state_dict()))
        return Weights(weights=weights, training_summary=summary)

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Score weights, and put everything back as it was."""
        arrays = match_weights(weights, to_arrays(self.model))
        with self._untouched():
            load_arrays(self.model, arrays)
            vote_score = self._score("vote_loader", self.vote_loader, self.vote_criterion)
            test_score = 0.0
            if self.test_loader is not None:
                test_score = self._score("test_loader", self.test_loader, self.test_criterion)
        return verdict(
            weights,
            vote_score=float("nan") if has_nan(arrays) else vote_score,
            test_score=test_score,
            own_score=self.vote_score,
            minimise=self.minimise_criterion,
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        """Take the weights, and with one's own proposal the optimizer that made it."""
        arrays = match_weights(weights, to_arrays(self.model))
        with self._untouched():
            load_arrays(self.model, arrays)
            vote_score = self._score("vote_loader", self.vote_loader, self.vote_criterion)
        load_arrays(self.model, arrays)
        self.vote_score = float("nan") if has_nan(arrays) else vote_score
        if self._proposed is not None and self._proposed[0] == fingerprint(arrays):
            self.optimizer.load_state_dict(self._proposed[1])
        self._proposed = None

    def mli_get_current_weights(self) -> Weights:
        """Return a copy of the weights."""
        return Weights(weights=to_arrays(self.model))

    def mli_get_current_model(self) -> ColearnModel:
        """Return the weights as a safetensors file, in the model's own types."""
        from safetensors.torch import save  # noqa: PLC0415 - only whoever wants a file pays for it

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named_tensors(self.model).items()}
        return ColearnModel(ModelFormat.SAFETENSORS, MODEL_FILE, save(tensors))

    @property
    def _loaders(self) -> list[object]:
        return [self.train_loader, self.vote_loader, self.test_loader]

    def _untouched(self) -> Any:
        return left_as_it_was(self.model, self.optimizer, self._loaders)

    def _train(self) -> TrainingSummary:
        self.model.train()
        total, seen = torch.zeros((), dtype=torch.float64, device=self.device), 0
        for inputs, labels in self._batches("train_loader", self.train_loader, self.num_train_batches, again=True):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.criterion(self.model(inputs), labels)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * _weight(self.criterion, labels)  # on the device: no waiting for each batch
            seen += len(labels)
        examples = _length(getattr(self.train_loader, "dataset", None))
        return TrainingSummary(examples=seen if examples is None else examples, metrics={"loss": float(total) / seen})

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
        self, name: str, loader: Iterable[Any], most: int | None, *, again: bool
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
            if most is None or not again or given >= most:
                return


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
