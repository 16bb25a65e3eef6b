"""Models, data and looks at all that a scikit-learn learner may not change: what the tests of SklearnLearner share."""

import pickle

import numpy as np
from sklearn import linear_model as linear
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

from collective_learner.learners.sklearn import SklearnLearner, accuracy
from collective_learner.mli import Weights

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 5)).astype(np.float32)
Y3 = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
Y2 = (X[:, 0] > 0).astype(np.int64)


def squared_error(model, x, y) -> float:
    return float(np.mean((model.predict(x) - y) ** 2))


MODELS = {
    "sgd": (lambda: linear.SGDClassifier(loss="log_loss"), Y3, {"classes": range(3)}),
    "sgd binary": (lambda: linear.SGDClassifier(loss="log_loss"), Y2, {"classes": range(2)}),
    "sgd constant": (
        lambda: linear.SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01),
        Y3,
        {"classes": range(3)},
    ),
    "sgd averaged": (lambda: linear.SGDClassifier(loss="log_loss", average=True), Y3, {"classes": range(3)}),
    "sgd averaged late": (lambda: linear.SGDClassifier(loss="log_loss", average=70), Y2, {"classes": range(2)}),
    "hinge on accuracy": (
        linear.SGDClassifier,
        Y3,
        {"classes": range(3), "criterion": accuracy, "minimise_criterion": False},
    ),
    "generator of its own": (
        lambda: linear.SGDClassifier(loss="log_loss", random_state=np.random.RandomState(5)),
        Y3,
        {"classes": range(3)},
    ),
    "regressor": (
        linear.SGDRegressor,
        X[:, 0],
        {"criterion": squared_error, "test_criterion": squared_error},
    ),
    "logistic": (linear.LogisticRegression, Y3, {"classes": range(3), "epochs": 2}),
    "logistic binary": (linear.LogisticRegression, Y2, {"classes": range(2)}),
    "huber": (linear.HuberRegressor, X[:, 0], {"criterion": squared_error, "test_criterion": squared_error}),
    "poisson": (linear.PoissonRegressor, Y3, {"criterion": squared_error, "test_criterion": squared_error}),
    "elastic net": (
        lambda: linear.ElasticNet(alpha=0.1, selection="random"),
        X[:, 0],
        {"criterion": squared_error, "test_criterion": squared_error},
    ),
    "perceptron of layers": (lambda: MLPClassifier((4, 3), warm_start=True), Y3, {"classes": range(3), "epochs": 2}),
    "perceptron by momentum": (
        lambda: MLPClassifier((4,), solver="sgd", learning_rate="adaptive", random_state=np.random.RandomState(2)),
        Y2,
        {"classes": range(2)},
    ),
    "perceptron by lbfgs": (lambda: MLPClassifier((4,), solver="lbfgs"), Y3, {"classes": range(4)}),
    "perceptron of numbers": (
        lambda: MLPRegressor(hidden_layer_sizes=(3,)),
        X[:, 0],
        {"criterion": squared_error, "test_criterion": squared_error},
    ),
    "boosting": (
        lambda: HistGradientBoostingClassifier(min_samples_leaf=5, max_leaf_nodes=4, max_features=0.5),
        Y3,
        {"classes": range(3), "epochs": 2},
    ),
    "boosting binary": (
        lambda: HistGradientBoostingClassifier(min_samples_leaf=5, random_state=np.random.RandomState(2)),
        Y2,
        {"classes": range(2), "epochs": 3},
    ),
    "boosting of numbers": (
        lambda: HistGradientBoostingRegressor(min_samples_leaf=5, loss="absolute_error"),
        X[:, 0],
        {"criterion": squared_error, "test_criterion": squared_error},
    ),
}


def make(name: str = "sgd", *, seed: int = 1, **more) -> SklearnLearner:
    model, y, options = MODELS[name]
    return SklearnLearner(
        model(), (X[:50], y[:50]), (X[50:70], y[50:70]), (X[70:], y[70:]), seed=seed, **{**options, **more}
    )


def everything(learner: SklearnLearner) -> bytes:
    return pickle.dumps((learner._model, learner.vote_score, np.random.get_state()))


def as_bytes(weights: Weights) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in weights.weights.items()}
