"""SklearnLearner: what it scores, what it tells of a training, and that no nonsense ever wins."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn import linear_model as linear
from sklearn_models import Y3, X, make

from collective_learner.learners.sklearn import SklearnLearner, accuracy, log_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def test_scores_and_summary() -> None:
    learner = make()
    assert learner.vote_score == pytest.approx(np.log(3))  # weights of zero: every class alike
    summary = learner.mli_propose_weights().training_summary
    assert summary.examples == 50
    assert learner.examples_trained == 50 * learner.epochs
    assert 0 < summary.metrics["loss"] < 20
    model = learner._model
    assert log_loss(model, X, Y3) == pytest.approx(np.log(3))
    assert accuracy(model, X, Y3) == pytest.approx(np.mean(Y3 == 0))
    without = SklearnLearner(linear.SGDClassifier(loss="log_loss"), (X, Y3), (X, Y3), classes=range(3))
    assert without.mli_test_weights(without.mli_propose_weights()).test_score == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["sgd", "hinge on accuracy"])
def test_what_is_not_a_number_never_wins_and_loses_to_everything(name: str, bad: float) -> None:
    learner = make(name)
    poison = learner.mli_get_current_weights()
    poison.weights["coef_"][0, 0] = bad
    assert not learner.mli_test_weights(poison).vote
    good = learner.mli_propose_weights()
    learner.mli_accept_weights(poison)
    assert np.isnan(learner.vote_score)
    assert not learner.mli_test_weights(poison).vote
    assert learner.mli_test_weights(good).vote


def test_a_regressor_is_judged_by_its_squared_errors() -> None:
    y = X[:, 0] * 2 + 1
    learner = SklearnLearner(linear.SGDRegressor(), (X, y), (X, y), (X, y), epochs=20)
    assert learner.vote_score == pytest.approx(float((y**2).mean()))  # it begins at zero
    verdict = learner.mli_test_weights(learner.mli_propose_weights())
    assert verdict.vote
    assert verdict.vote_score < 0.1
    assert verdict.test_score == pytest.approx(1 - verdict.vote_score / y.var())
    alone = SklearnLearner(linear.SGDRegressor(), (X, y), (X, y), (X[:1], y[:1]))
    assert alone.mli_test_weights(alone.mli_get_current_weights()).test_score == 0
