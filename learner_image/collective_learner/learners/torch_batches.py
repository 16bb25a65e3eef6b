"""Batches of PyTorch's data loaders, or of anything else that can be gone through again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from collective_learner.mli import TrainingSummary


def batches_of(
    name: str,
    loader: Iterable[Any],
    most: int | None,
    *,
    again: bool,
    at_end: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Give batches as the loader has them; with `again` exactly `most` of them, if that is told, else at most.

    Parameters
    ----------
    name
        Of the loader, for errors.
    at_end
        Called each time that the loader has been gone through.

    Raises
    ------
    ValueError
        The loader is empty, or gives something else than pairs.
    """
    given = 0
    while True:
        before = given
        for batch in islice(loader, None if most is None else most - given):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise ValueError(f"{name}: a {type(batch).__name__}; pairs (inputs, labels) are needed")
            given += 1
            inputs, labels = batch
            yield inputs, labels
        if given == before:
            raise ValueError(f"{name}: no batches; at least one is needed")
        at_end()
        if most is None or not again or given >= most:
            return


class Feed:
    """The batches of one training, and how much of the training set they were.

    Parameters
    ----------
    loader
        Of the training set.
    most
        As many batches as this, going through the loader again where it has fewer; None for one pass.
    before, after
        Called before each batch, and with its number of examples when the next is asked for.
    """

    def __init__(
        self, loader: Iterable[Any], most: int | None, *, before: Callable[[], None], after: Callable[[int], None]
    ) -> None:
        self._loader, self._most, self._before, self._after = loader, most, before, after
        self._seen = 0
        self._pass: int | None = None
        self.batch_size: int | None = None
        """Examples in the batch that was given last."""

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        batches = batches_of("train_loader", self._loader, self._most, again=True, at_end=self._end_pass)
        for inputs, labels in batches:
            self._before()
            self.batch_size = len(labels)
            yield inputs, labels
            self._seen += len(labels)
            self._after(len(labels))

    def summary(self, loss: float) -> TrainingSummary:
        """Tell of the training set, however many of its examples this training saw, or saw again.

        Parameters
        ----------
        loss
            The sum over all examples that it saw.
        """
        examples = examples_in(self._loader)
        if examples is None:
            examples = self._seen if self._pass is None else self._pass
        return TrainingSummary(examples=examples, metrics={"loss": loss / self._seen})

    def _end_pass(self) -> None:
        if self._pass is None:
            self._pass = self._seen


def examples_in(loader: object) -> int | None:
    """Return how many examples a loader goes through: a sampler may choose fewer than there are."""
    for part in ("sampler", "dataset"):
        if (length := length_of(getattr(loader, part, None))) is not None:
            return length
    return None


def length_of(sized: Any) -> int | None:
    """Return a length; None for a stream, which has none."""
    try:
        return len(sized)
    except TypeError:
        return None
