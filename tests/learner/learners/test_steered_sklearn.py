"""SklearnLearner's training as told from outside, FedProx and stops; what is not proposed, nor tested twice."""

import pickle
import re

import numpy as np
import pytest

from collective_learner.learners.sklearn import SklearnLearner, log_loss
from collective_learner.learners.sklearn_proximal import rates
from collective_learner.mli import OptionRefusedError, TrainingOptions, TrainingStoppedError, Weights

pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
from sklearn import linear_model as linear

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 5))
Y = (X[:, 0] + X[:, 1] > 0.3).astype(np.int64)

SCHEDULES = {
    "constant": {"learning_rate": "constant", "eta0": 0.05},
    "optimal": {"learning_rate": "optimal", "alpha": 0.01},
    "invscaling": {"learning_rate": "invscaling", "eta0": 0.3, "power_t": 0.4},
    "adaptive": {"learning_rate": "adaptive", "eta0": 0.05},
}


class Counting:
    """A criterion that counts its calls."""

    calls = 0

    def __call__(self, model, x, y) -> float:
        self.calls += 1
        return log_loss(model, x, y)


def make(schedule: str = "constant", **options) -> SklearnLearner:
    more = options.pop("model", {})
    model = linear.SGDClassifier(loss="log_loss", **{**SCHEDULES[schedule], **more})
    return SklearnLearner(
        model, (X[:50], Y[:50]), (X[50:], Y[50:]), classes=range(2), **{"batch_size": 16, "epochs": 3, **options}
    )


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([array.ravel() for array in weights.weights.values()])


def trained(learner: SklearnLearner, **options) -> np.ndarray:
    learner.mli_set_training_options(TrainingOptions(**options))
    return flat(learner.mli_propose_weights())


def moved(learner: SklearnLearner) -> SklearnLearner:
    """Away from zero, so that towards zero and towards the start differ."""
    own = learner.mli_get_current_weights().weights
    learner.mli_accept_weights(Weights({name: array + 1.0 for name, array in own.items()}))
    return learner


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_proximal_term_pulls_the_harder_the_nearer(schedule: str, average: bool) -> None:
    learner = moved(make(schedule, model={"average": average}))
    start = flat(learner.mli_get_current_weights())
    plain = trained(learner)
    for nothing in (0.0, 1e-30):
        assert trained(learner, proximal_mu=nothing).tobytes() == plain.tobytes()
    distances = [np.linalg.norm(trained(learner, proximal_mu=mu) - start) for mu in (0, 0.1, 1, 10)]
    assert distances == sorted(distances, reverse=True)
    assert len(set(distances)) == 4
    if not average:  # the average is taken before the pull
        assert np.linalg.norm(trained(learner, proximal_mu=1e9) - start) < 1e-6 * distances[0]
    assert trained(learner).tobytes() == plain.tobytes()


def reference(schedule: str, start: np.ndarray, mu: float, batch: int, *, inside: bool) -> np.ndarray:
    """SGD for logistic regression, the proximal term after each batch or, as FedProx has it, in each step."""
    options = {"alpha": 0.0001, "eta0": 0.01, "power_t": 0.25, **SCHEDULES[schedule]}
    x, sign = np.hstack([X[:50], np.ones((50, 1))]), 2.0 * Y[:50] - 1
    w, t = start.copy(), 1.0
    for first in range(0, 50, batch):
        pull = 1.0
        for row, y in zip(x[first : first + batch], sign[first : first + batch], strict=True):
            eta = {
                "constant": options["eta0"],
                "adaptive": options["eta0"],
                "invscaling": options["eta0"] / t ** options["power_t"],
                "optimal": 1 / (options["alpha"] * (options["alpha"] ** -0.75 + t - 1)),
            }[schedule]
            slope = -y / (1 + np.exp(y * (row @ w)))
            near = mu * (w - start) if inside else 0
            w = w * np.array([1 - eta * options["alpha"]] * 5 + [1.0]) - eta * (slope * row + near)
            pull /= 1 + eta * mu
            t += 1
        if not inside:
            w = start + (w - start) * pull
    return w


@pytest.mark.parametrize("schedule", ["constant", "invscaling", "adaptive", "optimal"])
def test_fedprox_agrees_with_a_reference(schedule: str, monkeypatch) -> None:
    learner = moved(make(schedule, epochs=1, batch_size=8, model={"shuffle": False}))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Ordered())
    start = flat(learner.mli_get_current_weights())
    for mu in (0.0, 0.5, 5.0):
        expected = reference(schedule, start, mu, 8, inside=False)
        assert trained(learner, proximal_mu=mu) == pytest.approx(expected, rel=1e-9, abs=1e-9)


class Ordered:
    """A generator that leaves the order of examples as it is."""

    def integers(self, most: int) -> int:
        return 0

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)


def test_a_pull_after_the_batch_is_near_a_pull_in_each_step() -> None:
    start, mu = np.full(6, 1.0), 1.0
    plain = reference("constant", start, 0.0, 8, inside=True)
    inside = reference("constant", start, mu, 8, inside=True)
    after = reference("constant", start, mu, 8, inside=False)
    assert np.linalg.norm(after - inside) < 0.2 * np.linalg.norm(plain - inside)
    one_by_one = reference("constant", start, mu, 1, inside=False)
    assert np.linalg.norm(one_by_one - inside) < 0.05 * np.linalg.norm(plain - inside)


def test_rates_are_those_that_scikit_learn_counts_on() -> None:
    model = linear.SGDClassifier(learning_rate="invscaling", eta0=0.5, power_t=0.5)
    assert rates(model, first=4.0, steps=2) == pytest.approx([0.25, 0.5 / 5**0.5])


def test_a_model_of_unknown_rates_refuses_a_proximal_term() -> None:
    learner = SklearnLearner(
        linear.SGDClassifier(learning_rate="pa1", eta0=1.0, loss="hinge", penalty=None),
        (X, Y),
        (X, Y),
        classes=range(2),
        criterion=lambda model, x, y: 0.0,
    )
    with pytest.raises(OptionRefusedError, match=r"proximal_mu: 0.5; the rates of SGDClassifier.* are not known"):
        learner.mli_set_training_options(TrainingOptions(proximal_mu=0.5))
    learner.mli_set_training_options(TrainingOptions(round=2))
    learner.mli_propose_weights()


def test_every_round_trains_otherwise_and_the_same_round_the_same() -> None:
    learner = make()
    rounds = [trained(learner, round=number).tobytes() for number in (1, 2, 3)]
    assert len(set(rounds)) == 3
    assert trained(make(), round=2).tobytes() == rounds[1]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 5, 11])
def test_a_stop_in_the_middle_leaves_everything(monkeypatch, batch: int, reset: bool) -> None:
    learner = make(need_reset_optimizer=reset)
    expected = trained(learner)
    before = pickle.dumps((learner._model, learner.vote_score, np.random.get_state()))
    calls = []
    real = linear.SGDClassifier.partial_fit

    def fit(self, x, y):
        if len(calls) == batch:
            learner.mli_stop_training()
        calls.append(len(y))
        return real(self, x, y)

    with monkeypatch.context() as patch:
        patch.setattr(linear.SGDClassifier, "partial_fit", fit)
        if batch < 11:
            with pytest.raises(TrainingStoppedError):
                learner.mli_propose_weights()
            assert len(calls) == batch + 1
        else:
            learner.mli_propose_weights()  # it was the last batch: nothing is left to stop
    assert pickle.dumps((learner._model, learner.vote_score, np.random.get_state())) == before
    assert trained(learner).tobytes() == expected.tobytes()


def test_accepting_what_was_tested_last_needs_no_second_test() -> None:
    criterion = Counting()
    learner = make(criterion=criterion)
    one, two = trained(learner, round=1), trained(learner, round=2)
    proposals = [Weights({"coef_": w[None, :5].copy(), "intercept_": w[5:].copy()}) for w in (one, two)]
    for fixed in (False, True):
        for proposal in proposals:
            for array in proposal.weights.values():
                array.flags.writeable = not fixed
        scores = [learner.mli_test_weights(proposal).vote_score for proposal in proposals]
        criterion.calls = 0
        learner.mli_accept_weights(Weights(dict(proposals[1].weights)))
        assert criterion.calls == 0
        assert learner.vote_score == scores[1]
        assert flat(learner.mli_get_current_weights()).tobytes() == two.tobytes()
        learner.mli_accept_weights(proposals[0])
        assert criterion.calls == 1
        assert learner.vote_score == scores[0]


def test_weights_changed_after_their_test_are_tested_again() -> None:
    learner = make()
    proposal = learner.mli_propose_weights()
    tested = learner.mli_test_weights(proposal).vote_score
    proposal.weights["coef_"] += 1
    learner.mli_accept_weights(proposal)
    assert learner.vote_score != tested
    assert learner.vote_score == log_loss(learner._model, X[50:], Y[50:])


def test_proposals_stay_as_they_are_whatever_comes_after() -> None:
    for reset in (True, False):
        learner = make(need_reset_optimizer=reset)
        first = learner.mli_propose_weights()
        held = flat(first).tobytes()
        learner.mli_test_weights(first)
        learner.mli_accept_weights(first)
        learner.mli_accept_weights(learner.mli_propose_weights())
        assert flat(first).tobytes() == held


def test_a_training_that_diverges_is_refused() -> None:
    learner = make(model={"eta0": 1e308, "alpha": 1e-8})
    with pytest.raises((ArithmeticError, ValueError), match=re.compile("diverged|overflow", re.IGNORECASE)):
        learner.mli_propose_weights()
    assert not flat(learner.mli_get_current_weights()).any()
