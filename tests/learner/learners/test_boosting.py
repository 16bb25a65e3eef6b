"""Boosted trees that travel: the same as scikit-learn's own, on anybody's trees, and nothing hostile gets to them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_learner.learners.sklearn import SklearnLearner, accuracy
from collective_learner.learners.sklearn_trees import check, to_nodes
from collective_learner.mli import (
    OptionRefusedError,
    TrainingOptions,
    TrainingStoppedError,
    Weights,
    WeightsRefusedError,
)
from collective_learner.template import Template
from collective_learner.wire.codec import decode, encode
from collective_learner.wire.parts import WireError

pytest.importorskip("sklearn.ensemble", reason="scikit-learn is not installed")
from sklearn import ensemble

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(240, 4))
X[RNG.random(X.shape) < 0.1] = np.nan
Y = (np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) > 0.2).astype(np.int64) + np.isnan(X[:, 2])
VALUES = np.nan_to_num(X[:, 0]) * 3 + 100


def squared_error(model, x, y) -> float:
    return float(np.mean((model.predict(x) - y) ** 2))


def classifier(part: slice = slice(None), *, classes: int = 3, epochs: int = 4, **options) -> SklearnLearner:
    model = ensemble.HistGradientBoostingClassifier(**{"min_samples_leaf": 5, "max_leaf_nodes": 6, **options})
    data = X[part], np.minimum(Y[part], classes - 1)
    return SklearnLearner(model, data, data, data, classes=range(classes), epochs=epochs)


def regressor(part: slice = slice(None), *, epochs: int = 4, **options) -> SklearnLearner:
    model = ensemble.HistGradientBoostingRegressor(**{"min_samples_leaf": 5, "max_leaf_nodes": 6, **options})
    data = X[part], VALUES[part]
    return SklearnLearner(model, data, data, criterion=squared_error, epochs=epochs, test_criterion=squared_error)


def accept_own(learner: SklearnLearner, times: int = 1) -> None:
    for _ in range(times):
        learner.mli_accept_weights(learner.mli_propose_weights())


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson"])
def test_rounds_of_one_site_are_what_scikit_learn_fits_at_once(loss: str) -> None:
    learner = regressor(loss=loss)
    accept_own(learner, 3)
    options = {"max_iter": 12, "min_samples_leaf": 5, "max_leaf_nodes": 6, "early_stopping": False}
    whole = ensemble.HistGradientBoostingRegressor(loss=loss, **options).fit(X, VALUES)
    assert learner._model.n_iter_ == 12
    assert learner._model.predict(X).tobytes() == whole.predict(X).tobytes()


def test_trees_go_on_from_those_of_other_sites_as_they_are() -> None:
    # The site's bins are its own: told by the bins, the trees of the other would say something else of its inputs.
    one, other = regressor(slice(0, 120)), regressor(slice(120, 240))
    other.mli_accept_weights(one.mli_get_current_weights())
    for _ in range(3):
        for trains, follows in ((one, other), (other, one)):
            before = trains._model.predict(X)
            left = trains.train_data.y - before[:120] if trains is one else trains.train_data.y - before[120:]
            proposed = trains.mli_propose_weights()
            assert proposed.training_summary.metrics["loss"] < np.mean(left**2)
            for learner in (trains, follows):
                learner.mli_accept_weights(proposed)
            assert one._model.predict(X).tobytes() == other._model.predict(X).tobytes()
    assert squared_error(one._model, X, VALUES) < 0.3


def test_what_is_missing_goes_where_it_went() -> None:
    learner, follower = classifier(), classifier(slice(0, 30))
    accept_own(learner, 5)
    arrays = learner.mli_get_current_weights().weights
    assert np.isfinite(arrays["trees.threshold"]).all()
    thresholds = np.concatenate([tree.nodes["num_threshold"] for trees in learner._model._predictors for tree in trees])
    assert np.isinf(thresholds).any()  # a node that asks for nothing but whether a number is there
    nodes = np.concatenate(to_nodes(arrays, learner._model._predictors[0][0].nodes.dtype))
    assert nodes["num_threshold"].tobytes() == thresholds.tobytes()
    follower.mli_accept_weights(Weights(arrays))
    assert follower._model.predict_proba(X).tobytes() == learner._model.predict_proba(X).tobytes()


def test_a_site_that_has_not_seen_a_class_learns_with_the_others() -> None:
    seen = Y != 2
    model = ensemble.HistGradientBoostingClassifier(min_samples_leaf=5, max_leaf_nodes=6)
    learner = SklearnLearner(model, (X[seen], Y[seen]), (X, Y), classes=range(3), epochs=3)
    begin = learner._model.predict_proba(X)
    assert begin.min() > 1e-3  # smoothed: nobody's first word is that there is no such thing
    other = classifier()
    proposed = learner.mli_propose_weights()
    assert len(proposed.weights["trees.nodes"]) == 9
    other.mli_accept_weights(proposed)
    accept_own(other, 12)
    assert accuracy(other._model, X, Y) > 0.9


def test_a_full_ensemble_proposes_itself_and_nobody_approves() -> None:
    learner = classifier(max_iter=6)
    accept_own(learner, 2)
    assert learner._model.n_iter_ == 6
    again = learner.mli_propose_weights()
    assert {name: array.tobytes() for name, array in again.weights.items()} == {
        name: array.tobytes() for name, array in learner.mli_get_current_weights().weights.items()
    }
    assert not learner.mli_test_weights(again).vote
    Template(learner.mli_get_current_weights()).fit(again)


def test_a_training_stops_between_two_trees() -> None:
    learner = classifier(epochs=1_000_000, max_iter=2_000_000)
    before = learner.mli_get_current_weights().weights
    ended: list[BaseException] = []

    def train() -> None:
        try:
            learner.mli_propose_weights()
        except TrainingStoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    while thread.is_alive():  # as a server does: the first word may come before the training begins
        learner.mli_stop_training()
        thread.join(0.05)
    assert len(ended) == 1
    after = learner.mli_get_current_weights().weights
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_no_proximal_term_and_what_grows_is_told() -> None:
    learner = classifier(max_iter=50)
    with pytest.raises(OptionRefusedError, match=r"proximal_mu: 0\.1; the rates of HistGradientBoostingClassifier"):
        learner.mli_set_training_options(TrainingOptions(proximal_mu=0.1))
    for weights in (learner.mli_get_current_weights(), learner.mli_propose_weights()):
        assert weights.growing["trees.nodes"] == 150
        assert weights.growing["trees.left"] == 150 * 11
        assert "baseline" not in weights.growing


CALLS = st.sampled_from(["propose", "accept own", "accept another's", "accept the first", "test another's"])


@settings(max_examples=30)
@given(calls=st.lists(st.tuples(CALLS, st.integers(0, 1)), max_size=8))
def test_what_is_proposed_depends_on_the_weights_alone_and_not_on_how_one_came_by_them(calls) -> None:
    # What trees say of the examples is remembered; another learner, that remembers nothing, says the same to the bit.
    two = [classifier(slice(0, 120), epochs=2), classifier(slice(120, 240), epochs=2)]
    first = two[0].mli_get_current_weights()
    for call, index in calls:
        mine, other = two[index], two[1 - index]
        match call:
            case "propose":
                mine.mli_propose_weights()
            case "accept own":
                accept_own(mine)
            case "accept another's":
                mine.mli_accept_weights(other.mli_propose_weights())
            case "accept the first":
                mine.mli_accept_weights(first)
            case "test another's":
                mine.mli_test_weights(other.mli_propose_weights())
    for mine, part in zip(two, (slice(0, 120), slice(120, 240)), strict=True):
        fresh = classifier(part, epochs=2)
        fresh.mli_accept_weights(mine.mli_get_current_weights())
        proposed, expected = mine.mli_propose_weights(), fresh.mli_propose_weights()
        assert all(array.tobytes() == expected.weights[name].tobytes() for name, array in proposed.weights.items())
        assert proposed.training_summary == expected.training_summary


HONEST = classifier(epochs=3)
accept_own(HONEST, 2)
ARRAYS = HONEST.mli_get_current_weights().weights
BOUNDS = HONEST._kind._bounds
ROOT_1 = int(ARRAYS["trees.nodes"][0])
"""Of the second tree."""
LEAF = int(np.flatnonzero(ARRAYS["trees.left"] == 0)[0])


def changed(name: str, at: int | slice, value: object) -> dict[str, np.ndarray]:
    array = ARRAYS[name].copy()
    array[at] = value
    return {**ARRAYS, name: array}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed("trees.left", 0, 0), "'trees.right', node 0: there is one child"),
        (changed("trees.left", 1, 1), "'trees.left', node 1: the child does not come after"),
        (changed("trees.right", 1, 0), "'trees.right', node 1: the child does not come after"),
        (changed("trees.left", 0, ROOT_1), "'trees.left', node 0: the child does not come after it in its tree"),
        (changed("trees.right", ROOT_1, 2**32 - 1), f"'trees.right', node {ROOT_1}: the child does not come"),
        (changed("trees.right", LEAF, 3), f"'trees.right', node {LEAF}: there is one child"),
        (changed("trees.left", slice(None), ARRAYS["trees.right"]), "it is not the child of one node"),
        (changed("trees.feature", 0, 4), "'trees.feature', node 0: the inputs have 4 columns"),
        (changed("trees.feature", ROOT_1, 2**31), f"'trees.feature', node {ROOT_1}: the inputs have 4"),
        (changed("trees.threshold", 0, np.nan), "'trees.threshold', node 0: it is not finite"),
        (changed("trees.value", LEAF, np.inf), f"'trees.value', node {LEAF}: it is not finite"),
        (changed("baseline", 1, -np.inf), "'baseline', node 1: it is not finite"),
        (changed("trees.nodes", 0, 0), "'trees.nodes', tree 0: a tree has 1 to 11 nodes"),
        (changed("trees.nodes", 3, 12), "'trees.nodes', tree 3: a tree has 1 to 11 nodes"),
        (changed("trees.nodes", 3, 2**32 - 1), "'trees.nodes', tree 3: a tree has 1 to 11 nodes"),
        ({**ARRAYS, "trees.nodes": ARRAYS["trees.nodes"][:-1]}, "'trees.nodes' tells of 17 trees"),
        ({**ARRAYS, "trees.nodes": ARRAYS["trees.nodes"][:-3]}, "'trees.nodes' tells of .* nodes, 'trees.left' has"),
        ({**ARRAYS, "trees.value": ARRAYS["trees.value"][:-1]}, "'trees.value' has .* nodes, 'trees.left' has"),
        ({**ARRAYS, "trees.left": ARRAYS["trees.left"].astype(np.int64)}, "'trees.left' has type int64"),
        ({**ARRAYS, "trees.left": ARRAYS["trees.left"][None]}, r"'trees.left' has shape \(1, .* at most 3300 rows"),
        ({**ARRAYS, "baseline": ARRAYS["baseline"][:2]}, r"'baseline' has shape \(2,\), the model's has \(3,\)"),
        ({**ARRAYS, "trees.count": ARRAYS["trees.left"]}, "unknown 'trees.count'"),
        (
            {name: np.concatenate([array] * 20) if name != "baseline" else array for name, array in ARRAYS.items()},
            "at most 300 rows",
        ),
    ],
)
def test_hostile_trees_are_refused_by_name_and_change_nothing(arrays: dict, message: str) -> None:
    before = {name: array.tobytes() for name, array in HONEST.mli_get_current_weights().weights.items()}
    for method in (HONEST.mli_test_weights, HONEST.mli_accept_weights):
        with pytest.raises(WeightsRefusedError, match=message):
            method(Weights(arrays))
    assert {name: array.tobytes() for name, array in HONEST.mli_get_current_weights().weights.items()} == before


def walked(arrays: dict[str, np.ndarray], row: np.ndarray) -> np.ndarray:
    """Predict one row's raw scores, step by step, refusing any step that leads astray."""
    raw, root = arrays["baseline"].copy(), 0
    for tree, size in enumerate(arrays["trees.nodes"].tolist()):
        node, steps = 0, 0
        while arrays["trees.left"][root + node]:
            at = root + node
            value = row[arrays["trees.feature"][at]]
            left = arrays["trees.missing_left"][at] if np.isnan(value) else value <= arrays["trees.threshold"][at]
            node = int(arrays["trees.left"][at] if left else arrays["trees.right"][at])
            steps += 1
            assert node < size
            assert steps < size
        raw[tree % len(raw)] += arrays["trees.value"][root + node]
        root += size
    assert root == len(arrays["trees.left"])
    return raw


NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 5, 9, 10, 11, 2**16, 2**31, 2**32 - 1])
FIELDS = ["trees.left", "trees.right", "trees.feature", "trees.nodes"]


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 10**6), NUMBERS), min_size=1, max_size=4))
def test_whatever_is_not_refused_is_walked_within_its_bounds(changes: list[tuple[str, int, int]]) -> None:
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    for name, at, value in changes:
        arrays[name][at % len(arrays[name])] = value
    try:
        check(arrays, BOUNDS)
    except WeightsRefusedError:
        return
    rows = X[:5]
    expected = np.array([walked(arrays, row) for row in rows])
    found = HONEST._kind.showing(HONEST._model, arrays)._raw_predict(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(1, 11), min_size=3, max_size=12), data=st.data())
def test_trees_made_of_nothing_but_noise_are_refused_or_walked(sizes: list[int], data: st.DataObject) -> None:
    sizes = sizes[: len(sizes) // 3 * 3]
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng, count = np.random.default_rng(seed), sum(sizes)
    arrays = {
        "baseline": rng.normal(size=3),
        "trees.nodes": np.array(sizes, np.uint32),
        "trees.feature": rng.integers(0, 5, count).astype(np.uint32),
        "trees.threshold": rng.normal(size=count),
        "trees.missing_left": rng.random(count) < 0.5,
        "trees.left": rng.integers(0, 4, count).astype(np.uint32),
        "trees.right": rng.integers(0, 4, count).astype(np.uint32),
        "trees.value": rng.normal(size=count),
    }
    try:
        HONEST.mli_test_weights(Weights(arrays))
    except WeightsRefusedError:
        return
    for row in X[:3]:
        walked(arrays, row)


def test_trees_have_one_size_limit_that_is_known_before_they_come() -> None:
    template = Template(classifier(max_iter=50).mli_get_current_weights())
    encoded = encode(Weights(ARRAYS))
    assert encoded.total < template.limit < 150 * 11 * 40 + 200_000
    fitted = template.fit(decode(encoded.to_bytes()))
    assert fitted.growing["trees.nodes"] == 150
    many = {name: np.concatenate([array] * 9) if name != "baseline" else array for name, array in ARRAYS.items()}
    with pytest.raises(WireError, match=r"'trees.nodes' has the shape \(162,\), the model's has \(at most 150\)"):
        template.fit(Weights(many))
