"""SklearnLearner: what it cannot work with is refused, with the argument, what it is and what is needed."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from scipy.sparse import csr_matrix
from sklearn import linear_model as linear
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn_models import Y2, Y3, X, as_bytes, everything, make

from collective_learner.learners.sklearn import SklearnLearner
from collective_learner.mli import Weights

pytestmark = pytest.mark.usefixtures("one_thread")


EMPTY = (X[:0], Y3[:0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vote_data": EMPTY}, "vote_data: no examples"),
        ({"train_data": EMPTY}, "train_data: no examples"),
        ({"test_data": EMPTY}, "test_data: no examples"),
        ({"vote_data": (X[:, :4], Y3)}, "vote_data: 4 features, the model has 5"),
        ({"vote_data": (X, Y3[:-1])}, r"vote_data: x of shape \(90, 5\) and y of shape \(89,\)"),
        ({"test_data": (X, Y3 + 7)}, r"test_data: labels \[7, 8, 9\] are not among the classes \[0, 1, 2\]"),
        ({"classes": None}, "classes: all classes of the task are needed"),
        ({"classes": [1]}, "classes: .* at least two"),
        ({"epochs": 0}, "epochs: 0"),
        ({"batch_size": True}, "batch_size: True"),
        ({"seed": -1}, "seed: -1"),
        ({"model": linear.LogisticRegression(solver="liblinear")}, "solver: 'liblinear'"),
        ({"model": linear.RidgeClassifier()}, "neither partial_fit nor warm_start .* supported are linear models"),
        ({"model": RandomForestClassifier()}, "RandomForestClassifier.* HistGradientBoostingClassifier"),
        ({"model": GradientBoostingClassifier()}, "GradientBoostingClassifier.* supported are"),
        ({"model": HistGradientBoostingClassifier(), "classes": None}, "classes: all classes of the task are needed"),
        ({"model": HistGradientBoostingClassifier(max_leaf_nodes=None)}, "max_leaf_nodes: None"),
        ({"model": HistGradientBoostingClassifier(early_stopping=True)}, "early_stopping: True"),
        ({"model": HistGradientBoostingClassifier(max_iter=0)}, "max_iter: 0"),
        ({"model": HistGradientBoostingClassifier(categorical_features=[0])}, "categorical_features: .* encode them"),
        ({"model": HistGradientBoostingClassifier(max_iter=9).fit(X, Y3).set_params(max_iter=3)}, "max_iter: 3, but"),
        ({"model": HistGradientBoostingClassifier(max_iter=3).fit(X, Y2)}, "trained for others"),
        ({"model": linear.SGDClassifier()}, "log_loss needs a model with probabilities"),
        ({"model": linear.SGDClassifier}, "model: the class SGDClassifier; an instance of one is needed"),
        ({"criterion": "loss"}, "criterion: 'loss'; a function of a model, x and y is needed"),
        ({"test_criterion": 3}, "test_criterion: 3; a function"),
        ({"train_data": None}, "train_data: a NoneType; a pair"),
        ({"train_data": (X, Y3, Y3)}, "train_data: 3 things; a pair"),
        ({"train_data": {"x": X, "y": Y3}}, "train_data: a dict; a pair"),
        ({"vote_data": (csr_matrix(X), Y3)}, "vote_data: x is csr_matrix; an array of numbers is needed"),
        ({"vote_data": (X.astype(str), Y3)}, "vote_data: x is of type <U.*; an array of numbers is needed"),
        ({"vote_data": (np.where(X > 1, np.nan, X), Y3)}, r"vote_data: x holds numbers that are missing \(nan\)"),
        ({"test_data": (np.where(X > 1, np.inf, X), Y3)}, "test_data: x holds numbers that are .* infinite"),
        ({"train_data": (X, np.where(Y3 > 1, np.nan, Y3))}, "train_data: y holds numbers that are missing"),
        ({"classes": 3}, "classes: 3; a list of all classes is needed"),
        ({"classes": [0, 1, 2, np.nan]}, "classes: .* a list of all classes is needed"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    arguments = {
        "model": linear.SGDClassifier(loss="log_loss"),
        "train_data": (X, Y3),
        "vote_data": (X, Y3),
        "test_data": (X, Y3),
        "classes": range(3),
    }
    with pytest.raises(ValueError, match=message):
        SklearnLearner(**{**arguments, **change})


def test_models_without_linear_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"GaussianNB.* neither coef_ and intercept_ nor coefs_ and intercepts_"):
        SklearnLearner(GaussianNB(), (X, Y3), (X, Y3), classes=range(3))


def test_refused_weights_change_nothing() -> None:
    learner = make()
    before = everything(learner)
    for change, message in [
        ({"coef_": np.zeros((2, 5), np.float32)}, "'coef_' has shape"),
        ({"intercept_": np.zeros(3)}, "'intercept_' has type float64"),
        ({"more": np.zeros(3)}, "unknown 'more'"),
    ]:
        weights = Weights({**learner.mli_get_current_weights().weights, **change})
        for method in (learner.mli_test_weights, learner.mli_accept_weights):
            with pytest.raises(ValueError, match=message):
                method(weights)
    assert everything(learner) == before


def test_lists_are_arrays_and_a_seed_may_be_any_that_a_task_has() -> None:
    one, other = (
        SklearnLearner(linear.SGDClassifier(loss="log_loss"), data, data, classes=range(3), seed=2**63)
        for data in ((X.astype(float).tolist(), Y3.tolist()), (X.astype(float), Y3))
    )
    assert as_bytes(one.mli_propose_weights()) == as_bytes(other.mli_propose_weights())
