"""The seam between learners and what leaves them: a model of any framework, asked for files and outputs.

An export that nobody compared is a guess: exporters drop layers, fix the size of the batch, and trace the training
mode. So `Exporter.onnx` runs every file in onnxruntime beside the framework's own model before it hands it out.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from collective_learner.export.errors import ExportError, first_line, needed
from collective_learner.export.inputs import pixels_of
from collective_learner.export.meaning import Meaning
from collective_learner.export.runtime import answer_of, session_of
from collective_learner.learners.common import MODEL_FILE

if TYPE_CHECKING:
    from collective_learner.mli import Array, MachineLearningInterface

ONNX, SAFETENSORS = "onnx", "safetensors"
ONNX_FILE = "model.onnx"
WEIGHTS = "collective.weights"
"""In the metadata of a file: the name, by content, of the weights that it is of."""
BATCHES = (1, 2, 7)
"""The sizes of the batches that a file is tried with; exporters treat 1 in ways of its own."""
_LARGEST_ONNX = 2_000_000_000
"""Bytes of weights; what protobuf can hold is a little more."""
_EXAMPLES = 64


class Exporter(abc.ABC):
    """One model, as it is now, in one framework.

    Parameters
    ----------
    example
        A few inputs of the learner's own, of shape (rows, ...): their shape, type and range are what random batches
        are drawn by. They go into no file.
    safetensors
        Writes the weights as a safetensors file.
    """

    framework: ClassVar[str]
    own_formats: ClassVar[Mapping[str, str]] = {}
    """What the framework itself loads: the format's name, and its file's."""
    tolerance: float = 1e-3
    """How far outputs may be from the framework's, relative to the largest."""
    classes: Sequence[Any] | None = None
    """The classes in the order of the outputs, where they have names."""

    def __init__(self, example: Any, safetensors: Callable[[], bytes]) -> None:
        found = np.asarray(example)
        if found.dtype.kind not in "fiub" or found.ndim < 1 or not len(found):
            raise ExportError(f"inputs of type {found.dtype}, shape {found.shape}; rows of numbers are needed")
        self.example: Array = found[:_EXAMPLES]
        self.safetensors = safetensors

    @property
    def formats(self) -> dict[str, str]:
        """The formats that there are for this model, and the name of each one's file."""
        return {ONNX: ONNX_FILE, SAFETENSORS: MODEL_FILE, **self.own_formats}

    @property
    @abc.abstractmethod
    def meaning(self) -> Meaning:
        """What the outputs are."""

    @abc.abstractmethod
    def outputs(self, x: Array) -> Array:
        """Run the framework's own model, as it predicts.

        Parameters
        ----------
        x
            Of the shape and type of the example, any number of rows.
        """

    def weights_bytes(self) -> int:
        """Return how large the weights are."""
        return len(self.safetensors())

    @abc.abstractmethod
    def to_onnx(self, batch: Array) -> bytes:
        """Have the framework's exporter write the model, whose last output is `outputs`.

        Parameters
        ----------
        batch
            Random inputs, more than one row.
        """

    def own_file(self, name: str) -> bytes:
        """Return the file of one of `own_formats`."""
        raise ExportError(f"{self.framework} has no format {name!r}")

    def file(self, name: str, *, about: Mapping[str, str] | None = None) -> bytes:
        """Return the model in one of `formats`.

        Parameters
        ----------
        about
            Further metadata of an ONNX file.

        Raises
        ------
        ExportError
            The format does not fit the framework, or the model does not go into it.
        """
        if name not in self.formats:
            raise ExportError(
                f"the format {name!r} does not fit a model of {self.framework}; there are {', '.join(self.formats)}"
            )
        if name == ONNX:
            return self.onnx(about)
        try:
            return self.safetensors() if name == SAFETENSORS else self.own_file(name)
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            raise ExportError(f"the model does not go into {name}: {first_line(error)}") from error

    def onnx(self, about: Mapping[str, str] | None = None) -> bytes:
        """Return the model as ONNX, compared with the framework's own outputs on random batches of several sizes.

        Raises
        ------
        ExportError
            A package is missing, the exporter refuses the model, or what it wrote answers otherwise.
        """
        onnx, runtime = needed("onnx", what="ONNX"), needed("onnxruntime", what="the check of ONNX")
        if self.weights_bytes() > _LARGEST_ONNX:
            raise ExportError(f"the weights have {self.weights_bytes()} bytes, one ONNX file holds {_LARGEST_ONNX}")
        rng = np.random.default_rng(0)
        try:
            written = self.to_onnx(self.random_batch(rng, 3))
        except ExportError:
            raise
        except Exception as error:  # a model is anybody's code, and exporters raise whatever they meet in it
            raise ExportError(f"{self.framework}'s exporter refuses the model: {first_line(error)}") from error
        self._compare(runtime, written, rng)
        model = onnx.load_from_string(written)
        onnx.helper.set_model_props(model, {**self._about(), **(about or {})})
        return bytes(model.SerializeToString())

    def random_batch(self, rng: np.random.Generator, rows: int) -> Array:
        """Draw inputs of the example's shape and type, within its range; some are missing where some of its are."""
        shape = (rows, *self.example.shape[1:])
        if self.example.dtype.kind == "f":
            missing = np.isnan(self.example)
            known = self.example[~missing] if not missing.all() else np.zeros(1)
            drawn = rng.uniform(known.min(), known.max(), shape)
            if missing.any():
                drawn[rng.random(shape) < missing.mean()] = np.nan
            return np.asarray(drawn, dtype=self.example.dtype)
        low, high = self.example.min(), self.example.max()
        return np.asarray(rng.integers(int(low), int(high), shape, endpoint=True), dtype=self.example.dtype)

    def _compare(self, runtime: Any, written: bytes, rng: np.random.Generator) -> None:
        try:
            session = session_of(runtime, written)
        except Exception as error:  # onnxruntime's errors have no common class
            raise ExportError(
                f"onnxruntime does not load what {self.framework}'s exporter wrote: {first_line(error)}"
            ) from error
        for rows in BATCHES:
            batch = self.random_batch(rng, rows)
            own = np.asarray(self.outputs(batch))
            try:
                found = answer_of(session, batch)
            except Exception as error:  # onnxruntime's errors have no common class
                raise ExportError(f"what was exported does not take a batch of {rows}: {first_line(error)}") from error
            if found.shape != own.shape and found.size == own.size and found.shape[0] == rows:
                found = found.reshape(own.shape)
            if found.shape != own.shape:
                raise ExportError(
                    f"what was exported answers a batch of {rows} with shape {found.shape}, "
                    f"{self.framework} with {own.shape}"
                )
            largest = float(np.abs(own).max(initial=0))
            if not np.allclose(found, own, rtol=0, atol=self.tolerance * max(1.0, largest), equal_nan=True):
                raise ExportError(
                    f"what was exported answers a batch of {rows} otherwise than {self.framework} does: "
                    f"up to {float(np.abs(np.subtract(found, own)).max()):.3g} apart, where outputs go to {largest:.3g}"
                )

    def _about(self) -> dict[str, str]:
        about = {"collective.framework": self.framework, "collective.outputs": str(self.meaning)}
        if (pixels := pixels_of(self.example)) is not None:
            about["collective.pixels"] = str(pixels)
        if self.classes is not None:
            about["collective.classes"] = json.dumps(list(self.classes))
        return about


def exporter_of(learner: MachineLearningInterface) -> Exporter:
    """Ask a learner for its model.

    Raises
    ------
    ExportError
        It is of a class that has no such method.
    """
    ask = getattr(learner, "exporter", None)
    if ask is None:
        raise ExportError(
            f"{type(learner).__name__} has no exporter(); PytorchLearner, KerasLearner and SklearnLearner have one, "
            "and what the run holds is model.safetensors"
        )
    exporter = ask()
    if not isinstance(exporter, Exporter):
        raise ExportError(f"{type(learner).__name__}.exporter() gives a {type(exporter).__name__}, not an Exporter")
    return exporter
