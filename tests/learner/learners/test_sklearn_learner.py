"""SklearnLearner: nothing moves but by accepting, weights by name, strict votes, determinism, with any model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from safetensors.numpy import load
from sklearn import linear_model as linear
from sklearn.neural_network import MLPClassifier
from sklearn_models import MODELS, Y3, X, as_bytes, everything, make

from collective_learner.learners.sklearn import SklearnLearner
from collective_learner.mli import OptionRefusedError, TrainingOptions, TrainingStoppedError, Weights

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_the_model_goes_out_as_a_safetensors_file() -> None:
    learner = make()
    learner.mli_accept_weights(learner.mli_propose_weights())
    loaded = load(learner.exporter().file("safetensors"))
    assert {name: array.tobytes() for name, array in loaded.items()} == as_bytes(learner.mli_get_current_weights())


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
