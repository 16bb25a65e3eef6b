"""Card fraud: a loader for the published tables of payments, a logistic regression, and boosting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from collective_learner.factory import FactoryRegistry
from collective_learner.learners.sklearn import SklearnLearner
from collective_learner.tasks.boosting import boosting_learner
from collective_learner.tasks.data import ClassificationData
from collective_learner.tasks.files import payments_at, split_up

if TYPE_CHECKING:
    from collective_learner.mli import Array


@FactoryRegistry.register_dataloader("FRAUD")
def fraud(location: str, train_ratio: float = 0.8, seed: int = 0) -> ClassificationData:
    """Load a table of payments: creditcard.csv, IEEE-CIS' train_transaction.csv, or a shard of either.

    Parameters
    ----------
    location
        A folder, a file or a URL.
    train_ratio
        The share to train on; of the others one half is to vote on, and one half to test on.
    seed
        Of the split.
    """
    x, y = payments_at(location)
    return ClassificationData(**split_up(x, y, train_ratio=train_ratio, seed=seed), classes=2, batch_size=32)


@FactoryRegistry.register_model_architecture("FRAUD", ["FRAUD"])
def fraud_model(data_loaders: ClassificationData, seed: int = 0) -> SklearnLearner:
    """Make a logistic regression that votes on its log loss, and tells the area under the ROC curve as its test score.

    Parameters
    ----------
    seed
        Of the order of examples.
    """
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    return SklearnLearner(
        SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.003, alpha=1e-4),
        data_loaders.train,
        data_loaders.vote,
        data_loaders.test,
        classes=range(2),
        epochs=2,
        batch_size=data_loaders.batch_size,
        test_criterion=area_under_roc,
        seed=seed,
    )


@FactoryRegistry.register_model_architecture("FRAUD_BOOSTING", ["FRAUD"])
def fraud_boosting(
    data_loaders: ClassificationData,
    learning_rate: float = 0.1,
    trees: int = 5,
    max_trees: int = 500,
    max_leaf_nodes: int = 31,
    min_samples_leaf: int = 20,
    seed: int = 0,
) -> SklearnLearner:
    """Make boosted trees, which suit such tables; votes and scores are FRAUD's, parameters `boosting_learner`'s."""
    return boosting_learner(
        data_loaders,
        learning_rate=learning_rate,
        trees=trees,
        max_trees=max_trees,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        seed=seed,
        test_criterion=area_under_roc,
    )


def area_under_roc(model: Any, x: Array, y: Array) -> float:
    """Share of pairs of a fraud and a good payment in which the fraud scores higher; NaN where no such pair is."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    if len(np.unique(y)) < 2:
        return float("nan")
    return float(roc_auc_score(y, model.decision_function(x)))
