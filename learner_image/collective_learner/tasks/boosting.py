"""Histogram gradient boosting on any classification data: a round's proposal is the trees so far and a few more.

The parameters are the same for all tasks that offer it, and explained once; the defaults are each task's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collective_learner.learners.checks import number, whole_number
from collective_learner.learners.sklearn import SklearnLearner

if TYPE_CHECKING:
    from collective_learner.tasks.data import ClassificationData


def boosting_learner(
    data: ClassificationData,
    *,
    learning_rate: float,
    trees: int,
    max_trees: int,
    max_leaf_nodes: int,
    min_samples_leaf: int,
    seed: int,
    **learner: Any,
) -> SklearnLearner:
    """Build a learner that votes on its log loss.

    Parameters
    ----------
    learning_rate
        How much of each tree counts.
    trees
        That a proposal adds (for each class, where there are more than two).
    max_trees
        The most that the whole model may have; with `max_leaf_nodes` it bounds what a learner takes from others.
    max_leaf_nodes, min_samples_leaf
        Leaves of a tree at most, and examples of a leaf at least.
    seed
        Of what scikit-learn draws; the trees' own parameters need no more.
    **learner
        Passed on to `SklearnLearner`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    return SklearnLearner(
        HistGradientBoostingClassifier(
            learning_rate=number("learning_rate", learning_rate, above=0),
            max_iter=whole_number("max_trees", max_trees, at_least=1),
            max_leaf_nodes=whole_number("max_leaf_nodes", max_leaf_nodes, at_least=2),
            min_samples_leaf=whole_number("min_samples_leaf", min_samples_leaf, at_least=1),
        ),
        data.train,
        data.vote,
        data.test,
        classes=range(data.classes),
        epochs=whole_number("trees", trees, at_least=1),
        seed=seed,
        **learner,
    )
