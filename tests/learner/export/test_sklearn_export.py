from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("onnxruntime")
import onnxruntime as ort
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import (
    HuberRegressor,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor

from collective_learner.export.errors import ExportError
from collective_learner.export.meaning import Meaning
from collective_learner.learners.sklearn import SklearnLearner
from collective_learner.mli import ModelFormat

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
        (LogisticRegression(), 3, Meaning.PROBABILITIES),
        (HuberRegressor(), 0, Meaning.VALUES),
        (PoissonRegressor(), 0, Meaning.VALUES),
        (MLPClassifier((4,)), 3, Meaning.PROBABILITIES),
        (MLPClassifier((4,)), 2, Meaning.PROBABILITIES),
        (MLPRegressor(hidden_layer_sizes=(4,)), 0, Meaning.VALUES),
        (HistGradientBoostingClassifier(min_samples_leaf=3), 3, Meaning.PROBABILITIES),
        (HistGradientBoostingClassifier(min_samples_leaf=3), 2, Meaning.PROBABILITIES),
        (HistGradientBoostingRegressor(min_samples_leaf=3), 0, Meaning.VALUES),
        (HistGradientBoostingRegressor(min_samples_leaf=3, loss="poisson"), 0, Meaning.VALUES),
    ],
    ids=str,
)
def test_models_go_out_as_onnx(model, classes: int, meaning: Meaning, dtype: type) -> None:
    x = X.astype(dtype)
    labels = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    y = LABELS[:classes][labels % classes] if classes else np.abs(X[:, 0])
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_number_goes_the_way_that_it_goes_in_scikit_learn(dtype: type) -> None:
    # Numbers right on a threshold, on either side of it, missing and infinite: rounding would send some another way.
    x = np.round(X, 1).astype(dtype)
    x[::7, 1] = np.nan
    y = (X[:, 0] > 0).astype(int) + (X[:, 2] > 0) + np.isnan(x[:, 1])
    learner = SklearnLearner(
        HistGradientBoostingClassifier(min_samples_leaf=2, learning_rate=0.5),
        (x, y),
        (x, y),
        classes=range(4),
        epochs=6,
    )
    learner.mli_accept_weights(learner.mli_propose_weights())
    thresholds = np.concatenate([tree.nodes["num_threshold"] for row in learner._model._predictors for tree in row])
    near = thresholds[np.isfinite(thresholds)].astype(dtype)
    edges = np.concatenate([near, np.nextafter(near, dtype(-9)), np.nextafter(near, dtype(9)), dtype([np.inf, np.nan])])
    batch = np.random.default_rng(1).choice(edges, size=(400, 5)).astype(dtype)
    exporter = learner.exporter()
    assert np.isnan(exporter.random_batch(np.random.default_rng(0), 99)).any()
    np.testing.assert_allclose(outputs(exporter.onnx(), batch), exporter.outputs(batch), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_forest_without_a_tree_answers_what_it_begins_with(classes: int) -> None:
    y = (X[:, 0] > 0).astype(int)
    learner = SklearnLearner(HistGradientBoostingClassifier(), (X, y), (X, y), classes=range(classes))
    exporter = learner.exporter()
    assert len(learner.mli_get_current_weights().weights["trees.nodes"]) == 0
    np.testing.assert_allclose(outputs(exporter.onnx(), X), exporter.outputs(X), atol=1e-6)


def test_a_link_that_is_not_known_is_told_not_guessed() -> None:
    learner = SklearnLearner(
        HistGradientBoostingRegressor(), (X, X[:, 0]), (X, X[:, 0]), criterion=lambda *_: 0.0, test_criterion=None
    )
    learner._model._loss.link = object()
    with pytest.raises(ExportError, match="the link object; known are IdentityLink, LogLink"):
        learner.exporter().onnx()
