"""scikit-learn's models out: ONNX by skl2onnx, and gradient boosting by `export.boosting`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.export.boosting import boosting_to_onnx
from collective_learner.export.errors import needed
from collective_learner.export.exporter import Exporter
from collective_learner.export.meaning import Meaning
from collective_learner.learners.sklearn_boosting import is_boosted

if TYPE_CHECKING:
    from collections.abc import Callable

    from collective_learner.mli import Array


class SklearnExporter(Exporter):
    """An estimator of scikit-learn.

    A classifier answers probabilities, or what it decides by where it has none; any other what it predicts. The file's
    first output of a classifier is the class itself.

    Parameters
    ----------
    model
        Fitted; left as it is.
    inputs
        Examples, one a row.
    safetensors
        As `Exporter` has it.
    """

    framework = "scikit-learn"

    def __init__(self, model: Any, inputs: Array, safetensors: Callable[[], bytes]) -> None:
        known = inputs.dtype in (np.float32, np.float64)
        super().__init__(inputs if known else inputs.astype(np.float32), safetensors)
        self._model = model
        found = getattr(model, "classes_", None)
        self.classes = None if found is None else np.asarray(found).tolist()

    @property
    def meaning(self) -> Meaning:
        """Probabilities, scores or values."""
        if self.classes is None:
            return Meaning.VALUES
        return Meaning.PROBABILITIES if hasattr(self._model, "predict_proba") else Meaning.SCORES

    def outputs(self, x: Array) -> Array:
        """Answer probabilities, scores of the classes, or predictions."""
        match self.meaning:
            case Meaning.PROBABILITIES:
                return np.asarray(self._model.predict_proba(x))
            case Meaning.SCORES:
                scores = np.asarray(self._model.decision_function(x))
                return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        return np.asarray(self._model.predict(x))

    def to_onnx(self, batch: Array) -> bytes:
        """Export by skl2onnx; probabilities as an array, not as a list of dicts."""
        if is_boosted(self._model):
            return boosting_to_onnx(self._model, batch)
        exporter = needed("skl2onnx", what="scikit-learn's exporter")
        types = needed("skl2onnx.common.data_types", what="scikit-learn's exporter")
        logging.getLogger("skl2onnx").setLevel(logging.ERROR)
        kind = types.DoubleTensorType if batch.dtype == np.float64 else types.FloatTensorType
        options: dict[str, Any] = {}
        if self.classes is not None:
            options["zipmap"] = False
            if self.meaning is Meaning.SCORES:
                options["raw_scores"] = True
        written = exporter.to_onnx(
            self._model,
            initial_types=[("input", kind([None, *batch.shape[1:]]))],
            options={id(self._model): options} if options else None,
        )
        return bytes(written.SerializeToString())
