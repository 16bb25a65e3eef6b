"""Keras' models out: ONNX by the model's own `export`, and Keras' own file."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from collective_learner.export.errors import ExportError, needed
from collective_learner.export.exporter import Exporter
from collective_learner.export.meaning import Meaning
from collective_learner.learners.keras_checks import errors_of_computations, telling_line
from collective_learner.learners.keras_devices import tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from collective_learner.mli import Array


class KerasExporter(Exporter):
    """A Keras model, on whichever backend; exported as it predicts.

    Parameters
    ----------
    model
        Built, and compiled with the loss that tells what its outputs are; left as it is.
    inputs
        What the learner votes on: an array, a PyDataset, or batches.
    safetensors
        As `Exporter` has it.
    """

    framework = "Keras"
    own_formats = {"keras": "model.keras"}  # noqa: RUF012 - as declared in the base

    def __init__(self, model: Any, inputs: Any, safetensors: Callable[[], bytes]) -> None:
        super().__init__(_first(inputs), safetensors)
        self._model = model
        if any(layer.compute_dtype in ("float16", "bfloat16") for layer in model._flatten_layers()):
            self.tolerance = 3e-2

    @property
    def meaning(self) -> Meaning:
        """What the loss takes: logits, where it says so."""
        loss = self._model.loss
        if isinstance(loss, str):
            loss = keras.losses.get(loss)
        options = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
        name = str(options.get("name") or getattr(loss, "name", None) or getattr(loss, "__name__", ""))
        if "crossentropy" not in name:
            return Meaning.VALUES
        one = name.startswith("binary")
        if options.get("from_logits"):
            return Meaning.LOGIT if one else Meaning.LOGITS
        return Meaning.PROBABILITY if one else Meaning.PROBABILITIES

    def outputs(self, x: Array) -> Array:
        """Call the model, not training."""
        found = self._model(x, training=False)
        if isinstance(found, list | tuple | dict):
            raise ExportError(f"the model gives a {type(found).__name__}; only one tensor can be exported and checked")
        return np.asarray(keras.ops.convert_to_numpy(found), dtype=np.float32)

    def own_file(self, name: str) -> bytes:
        """Return Keras' own file: layers, weights, and how it was compiled."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            self._model.save(path)
            return path.read_bytes()

    def to_onnx(self, batch: Array) -> bytes:
        """Export by the model's own `export`, which writes a file, and wants the model to have been called."""
        on_tensorflow = keras.backend.backend() == "tensorflow"
        needed("tf2onnx" if on_tensorflow else "onnxscript", what=f"Keras' exporter on {keras.backend.backend()}")
        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it tells what it does, and then raises the same
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _as_constants(self._model):
            warnings.simplefilter("ignore")
            path = Path(folder, "model.onnx")
            try:
                self.outputs(batch)
                _predicting(self._model, batch).export(str(path), format="onnx", verbose=False)
            except ExportError:
                raise
            except errors_of_computations() as error:
                raise ExportError(f"Keras' exporter refuses the model: {telling_line(error)}") from error
            return path.read_bytes()


def _predicting(model: Any, batch: Array) -> Any:
    """Give the model as it predicts: else layers that change their inputs in a training are exported doing so."""
    inputs = getattr(model, "inputs", None)
    if not isinstance(inputs, list) or len(inputs) != 1:
        return model
    given = keras.Input(inputs[0].shape[1:], dtype=inputs[0].dtype, name="input")
    predicting = keras.Model(given, model(given, training=False))
    predicting(np.asarray(batch, dtype=inputs[0].dtype))
    return predicting


@contextmanager
def _as_constants(model: Any) -> Iterator[None]:
    """Have layers hold arrays in place of tensors, as those of a `Normalization`: TensorFlow's become inputs."""
    tf = tensorflow()
    held = []
    for layer in model._flatten_layers() if tf is not None else ():
        for name, value in vars(layer).items():
            if tf.is_tensor(value) and hasattr(value, "numpy"):
                held.append((layer, name, value))
    for layer, name, value in held:
        vars(layer)[name] = value.numpy()
    try:
        yield
    finally:
        for layer, name, value in held:
            vars(layer)[name] = value


def _first(inputs: Any) -> Any:
    """Take the first inputs of whatever `evaluate` takes."""
    if isinstance(inputs, keras.utils.PyDataset):
        inputs = inputs[0][0]
    elif not hasattr(inputs, "shape") and not isinstance(inputs, list | tuple | dict):
        inputs = next(iter(inputs))[0]
    if isinstance(inputs, list | tuple | dict):
        raise ExportError(f"the model takes a {type(inputs).__name__}; only one array can be exported and checked")
    return keras.ops.convert_to_numpy(inputs)
