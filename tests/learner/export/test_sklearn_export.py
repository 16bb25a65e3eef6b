from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
ort = pytest.importorskip("onnxruntime")

from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor  # noqa: E402

from collective_learner.export.meaning import Meaning  # noqa: E402
from collective_learner.learners.sklearn import SklearnLearner  # noqa: E402
from collective_learner.mli import ModelFormat  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
LABELS = np.array(["red", "green", "blue"])


def outputs(model: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("model", "classes", "meaning"),
    [
        (SGDClassifier(loss="log_loss"), 3, Meaning.PROBABILITIES),
        (SGDClassifier(loss="log_loss", average=True), 2, Meaning.PROBABILITIES),
        (SGDClassifier(), 3, Meaning.SCORES),
        (SGDClassifier(), 2, Meaning.SCORES),
        (Perceptron(), 3, Meaning.SCORES),
        (SGDRegressor(), 0, Meaning.VALUES),
    ],
    ids=str,
)
def test_linear_models_go_out_as_onnx(model, classes: int, meaning: Meaning, dtype: type) -> None:
    x = X.astype(dtype)
    labels = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    y = LABELS[:classes][labels % classes] if classes else X[:, 0]
    criterion = {"criterion": lambda fitted, a, b: float(np.mean(fitted.predict(a) != b)) if classes else 0.0}
    named = {"classes": LABELS[:classes]} if classes else {}
    learner = SklearnLearner(model, (x, y), (x, y), test_criterion=lambda *_: 0.0, **criterion, **named)
    learner.mli_accept_weights(learner.mli_propose_weights())
    exported = learner.mli_get_current_model()
    assert exported.model_format is ModelFormat.ONNX, exported.description
    exporter = learner.exporter()
    assert exporter.meaning is meaning
    assert exporter.classes == (sorted(LABELS[:classes]) if classes else None)
    found = outputs(exported.model, x[:9])
    own = exporter.outputs(x[:9])
    assert np.allclose(found.reshape(own.shape), own, atol=1e-4)
