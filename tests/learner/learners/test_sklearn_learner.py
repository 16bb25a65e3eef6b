"""SklearnLearner: nothing moves but by accepting, weights by name, strict votes, determinism, with any model."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_learner.learners.sklearn import SklearnLearner, accuracy, log_loss
from collective_learner.mli import OptionRefusedError, TrainingOptions, TrainingStoppedError, Weights

linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
from scipy.sparse import csr_matrix  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("reset", [True, False])
def test_propose_and_test_leave_everything_and_accept_changes_it(name: str, reset: bool) -> None:
    learner = make(name, need_reset_optimizer=reset)
    for _ in range(3):
        before = everything(learner)
        proposed = learner.mli_propose_weights()
        assert everything(learner) == before
        verdict = learner.mli_test_weights(proposed)
        assert everything(learner) == before
        assert as_bytes(learner.mli_propose_weights()) == as_bytes(proposed)
        learner.mli_accept_weights(proposed)
        assert as_bytes(learner.mli_get_current_weights()) == as_bytes(proposed)
        assert learner.vote_score == pytest.approx(verdict.vote_score, abs=1e-6)
        assert not learner.mli_test_weights(proposed).vote  # equal is not better


CALLS = ("propose", "test own", "test others", "refuse", "stop", "refuse an option", "give weights")


@settings(max_examples=40)
@given(
    name=st.sampled_from([*MODELS]),
    reset=st.booleans(),
    calls=st.lists(st.sampled_from(CALLS), min_size=1, max_size=5),
    accepted=st.integers(0, 2),
)
def test_no_call_but_accepting_moves_anything(name: str, reset: bool, calls: list[str], accepted: int) -> None:
    learner, other = make(name, need_reset_optimizer=reset), make(name, seed=2)
    for _ in range(accepted):
        learner.mli_accept_weights(learner.mli_propose_weights())
    foreign = other.mli_propose_weights()
    before, proposal = everything(learner), as_bytes(learner.mli_propose_weights())
    for call in calls:
        match call:
            case "propose":
                learner.mli_propose_weights()
            case "test own":
                learner.mli_test_weights(learner.mli_propose_weights())
            case "test others":
                learner.mli_test_weights(foreign)
            case "refuse":
                broken = dict(foreign.weights)
                broken.popitem()
                with pytest.raises(ValueError, match="missing"):
                    learner.mli_test_weights(Weights(broken))
            case "stop":
                going, learner._go_on = learner._go_on, stopped
                with pytest.raises(TrainingStoppedError):
                    learner.mli_propose_weights()
                learner._go_on = going
            case "refuse an option":
                if not name.startswith(("sgd", "generator", "hinge", "regressor")):
                    with pytest.raises(OptionRefusedError, match="proximal_mu"):
                        learner.mli_set_training_options(TrainingOptions(proximal_mu=1.0))
            case "give weights":
                for array in learner.mli_get_current_weights().weights.values():
                    array[...] = 1
    assert everything(learner) == before
    assert as_bytes(learner.mli_propose_weights()) == proposal


def stopped() -> None:
    raise TrainingStoppedError("as a server would")


def test_a_training_is_its_own_after_every_accept() -> None:
    # The order of examples changes with the weights: two trainings in a row do not repeat the same one.
    learner = make()
    first = learner.mli_propose_weights()
    learner.mli_accept_weights(first)
    model = make()
    other = Weights({name: np.nextafter(array, np.float32(9)) for name, array in first.weights.items()})
    model.mli_accept_weights(other)
    one, two = learner.mli_propose_weights().weights["coef_"], model.mli_propose_weights().weights["coef_"]
    assert np.abs(one - two).max() > 1e-4


@pytest.mark.parametrize("average", [False, True])
def test_without_reset_training_goes_on_from_ones_own_accepted_proposal_only(average: bool) -> None:
    options = {"model": linear.SGDClassifier(loss="log_loss", average=average), "classes": range(3)}
    data = (X[:50], Y3[:50])
    keeps = SklearnLearner(train_data=data, vote_data=data, need_reset_optimizer=False, **options)
    own = keeps.mli_propose_weights()
    keeps.mli_accept_weights(own)
    assert keeps._model.t_ == 51
    foreign = Weights({name: array + 1 for name, array in own.weights.items()})
    superseded = keeps.mli_propose_weights()
    keeps.mli_accept_weights(foreign)
    assert keeps._model.t_ == 51
    keeps.mli_accept_weights(superseded)
    assert keeps._model.t_ == 51
    resets = SklearnLearner(train_data=data, vote_data=data, **options)
    resets.mli_accept_weights(resets.mli_propose_weights())
    assert resets._model.t_ == 1


def test_shapes_do_not_depend_on_the_classes_seen() -> None:
    seen = X[Y3 == 1], Y3[Y3 == 1]
    model = linear.SGDClassifier(loss="log_loss")
    learner = SklearnLearner(model, seen, seen, classes=range(3))
    assert {name: array.shape for name, array in learner.mli_get_current_weights().weights.items()} == {
        "coef_": (3, 5),
        "intercept_": (3,),
    }
    assert all(not array.any() for array in learner.mli_get_current_weights().weights.values())
    assert learner.mli_propose_weights().weights["coef_"].any()
    assert not hasattr(model, "coef_")  # the caller's model stays the caller's


def test_a_trained_model_keeps_its_weights() -> None:
    model = linear.SGDClassifier(loss="log_loss", random_state=1).fit(X, Y3)
    learner = SklearnLearner(model, (X, Y3), (X, Y3))
    assert np.array_equal(learner.mli_get_current_weights().weights["coef_"], model.coef_)
    with pytest.raises(ValueError, match="trained for others"):
        SklearnLearner(model, (X, Y3), (X, Y3), classes=range(4))


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


def test_the_model_goes_out_as_a_safetensors_file() -> None:
    from safetensors.numpy import load

    learner = make()
    learner.mli_accept_weights(learner.mli_propose_weights())
    loaded = load(learner.exporter().file("safetensors"))
    assert {name: array.tobytes() for name, array in loaded.items()} == as_bytes(learner.mli_get_current_weights())


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


@pytest.mark.parametrize("model", [linear.LogisticRegression(), MLPClassifier((4,), solver="lbfgs")], ids=str)
def test_a_fit_knows_the_classes_that_its_site_has_not_seen(model) -> None:
    seen = X[Y3 != 2], Y3[Y3 != 2]
    learner = SklearnLearner(model, seen, (X, Y3), classes=range(3), epochs=3)
    learner.mli_accept_weights(learner.mli_propose_weights())
    chances = learner._model.predict_proba(X)
    assert chances.shape == (90, 3)
    assert chances[:, 2].mean() < 1 / 3


def test_a_perceptron_begins_at_random_weights_that_say_nothing_of_the_examples() -> None:
    ones = [SklearnLearner(MLPClassifier((4,)), (x, Y3), (X, Y3), classes=range(3), seed=7) for x in (X, X[::-1])]
    assert as_bytes(ones[0].mli_get_current_weights()) == as_bytes(ones[1].mli_get_current_weights())
    other = SklearnLearner(MLPClassifier((4,)), (X, Y3), (X, Y3), classes=range(3), seed=8)
    assert as_bytes(ones[0].mli_get_current_weights()) != as_bytes(other.mli_get_current_weights())


def test_models_without_linear_weights_are_refused() -> None:
    from sklearn.naive_bayes import GaussianNB

    with pytest.raises(ValueError, match=r"GaussianNB.* neither coef_ and intercept_ nor coefs_ and intercepts_"):
        SklearnLearner(GaussianNB(), (X, Y3), (X, Y3), classes=range(3))


def test_lists_are_arrays_and_a_seed_may_be_any_that_a_task_has() -> None:
    one, other = (
        SklearnLearner(linear.SGDClassifier(loss="log_loss"), data, data, classes=range(3), seed=2**63)
        for data in ((X.astype(float).tolist(), Y3.tolist()), (X.astype(float), Y3))
    )
    assert as_bytes(one.mli_propose_weights()) == as_bytes(other.mli_propose_weights())


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
