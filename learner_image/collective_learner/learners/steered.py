"""What every built-in learner does alike towards the outside: its training's options, stops, and its model's export.

A stop comes from another thread. It is a flag that the training looks at between batches; a training forgets earlier
stops when it begins, and the server repeats a stop that came just before that.
"""

from __future__ import annotations

import abc
import logging
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from collective_learner.export.errors import ExportError
from collective_learner.learners.common import MODEL_FILE, fingerprint, is_finite
from collective_learner.mli import (
    ColearnModel,
    MachineLearningInterface,
    ModelFormat,
    TrainingDivergedError,
    TrainingOptions,
    TrainingStoppedError,
)

if TYPE_CHECKING:
    from collective_learner.export.exporter import Exporter
    from collective_learner.mli import Array

_logger = logging.getLogger(__name__)


class SteeredLearner(MachineLearningInterface):
    """A learner whose training has options, proximal term included, and can be stopped between batches.

    Its model can be exported.
    """

    accepts_views = True

    def __init__(self) -> None:
        self.options = TrainingOptions()
        self._stop = threading.Event()

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        """Train with these options from now on."""
        self.options = options

    def mli_stop_training(self) -> None:
        """Have the training that is going on end before its next batch."""
        self._stop.set()

    def mli_get_current_model(self) -> ColearnModel:
        """Return the model as ONNX where it can be had, else its weights as a safetensors file, and why."""
        try:
            exporter = self.exporter()
            return ColearnModel(ModelFormat.ONNX, exporter.formats["onnx"], exporter.onnx())
        except ExportError as error:
            _logger.warning("the model is given as safetensors, not as ONNX: %s", error)
            return ColearnModel(ModelFormat.SAFETENSORS, MODEL_FILE, self._safetensors(), f"not ONNX: {error}")

    @abc.abstractmethod
    def exporter(self) -> Exporter:
        """Give the model, as it is now, to be exported or to predict.

        Raises
        ------
        ExportError
            It takes something else than one array of numbers.
        """

    @abc.abstractmethod
    def _safetensors(self) -> bytes:
        """Write the weights as a safetensors file."""

    def _count(self, examples: int) -> None:
        """Count what was trained on."""
        self.examples_trained = (self.examples_trained or 0) + examples

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise TrainingStoppedError("the training was stopped between two batches")


class LastTested:
    """The score of the weights tested last, to be known again when they are accepted, without a second test.

    Arrays that cannot be written, as a server gives them, are known by being the same objects; others, which may have
    been changed meanwhile, by a fingerprint. The arrays are not kept alive.
    """

    def __init__(self) -> None:
        self._known: list[weakref.ref[Array]] | bytes = b""
        self._score = float("nan")

    def keep(self, arrays: Mapping[str, Array], score: float) -> None:
        """Remember the score of these weights, and forget the one before."""
        fixed = not any(array.flags.writeable for array in arrays.values())
        self._known = [weakref.ref(array) for array in arrays.values()] if fixed else fingerprint(arrays)
        self._score = score

    def score_of(self, arrays: Mapping[str, Array]) -> float | None:
        """Return the score, if these are the weights tested last."""
        if isinstance(self._known, bytes):
            same = self._known == fingerprint(arrays) if self._known else False
        else:
            same = len(self._known) == len(arrays) and all(
                known() is array and not array.flags.writeable
                for known, array in zip(self._known, arrays.values(), strict=True)
            )
        return self._score if same else None


def refuse_diverged(proposed: Mapping[str, Array], *, finite: frozenset[str]) -> None:
    """Refuse to propose weights that a training spoilt.

    Parameters
    ----------
    proposed
        By name.
    finite
        The names of those that were finite before: a mask of infinities may stay one.

    Raises
    ------
    TrainingDivergedError
        One of them is no longer finite; the message names it.
    """
    for name, array in proposed.items():
        if name in finite and not is_finite(array):
            raise TrainingDivergedError(
                f"the training diverged: {name!r} holds numbers that are not finite; a smaller learning rate may help"
            )
