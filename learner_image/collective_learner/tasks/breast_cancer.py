"""Breast cancer in Wisconsin, 569 patients with 30 measurements that scikit-learn ships; regression, and boosting.

scikit-learn itself is imported when a task asks for the data, not when the names are registered.
"""

from __future__ import annotations

import numpy as np

from collective_learner.factory import FactoryRegistry
from collective_learner.learners.sklearn import SklearnLearner
from collective_learner.tasks.boosting import boosting_learner
from collective_learner.tasks.data import ClassificationData, load_shard
from collective_learner.tasks.digits import logistic_learner


@FactoryRegistry.register_dataloader("BREAST_CANCER")
def breast_cancer(
    location: str,
    train_ratio: float = 0.6,
    vote_ratio: float = 0.2,
    skew: float = 0.0,
    batch_size: int = 32,
    seed: int = 0,
) -> ClassificationData:
    """Load a shard of the patients; the parameters are those of `load_shard`.

    Measurements are centred and scaled with means and deviations over all patients, as sites would agree on units
    beforehand: each site's own would make the same number mean different things. Labels play no part in it.
    """
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415

    x, y = load_breast_cancer(return_X_y=True)
    return load_shard(
        ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32),
        y.astype(np.int64),
        classes=2,
        location=location,
        train_ratio=train_ratio,
        vote_ratio=vote_ratio,
        skew=skew,
        batch_size=batch_size,
        seed=seed,
    )


@FactoryRegistry.register_model_architecture("SKLEARN_BREAST_CANCER", ["BREAST_CANCER"])
def sklearn_breast_cancer(
    data_loaders: ClassificationData,
    learning_rate: float = 0.003,
    alpha: float = 1e-3,
    epochs: int = 5,
    seed: int = 0,
) -> SklearnLearner:
    """Make a logistic regression that votes on its log loss; the parameters are those of SKLEARN_DIGITS."""
    return logistic_learner(data_loaders, learning_rate=learning_rate, alpha=alpha, epochs=epochs, seed=seed)


@FactoryRegistry.register_model_architecture("SKLEARN_BREAST_CANCER_BOOSTING", ["BREAST_CANCER"])
def sklearn_breast_cancer_boosting(
    data_loaders: ClassificationData,
    learning_rate: float = 0.1,
    trees: int = 5,
    max_trees: int = 500,
    max_leaf_nodes: int = 8,
    min_samples_leaf: int = 5,
    seed: int = 0,
) -> SklearnLearner:
    """Make boosted trees that vote on their log loss; the parameters are those of `boosting_learner`."""
    return boosting_learner(
        data_loaders,
        learning_rate=learning_rate,
        trees=trees,
        max_trees=max_trees,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        seed=seed,
    )
