"""Handwritten digits, 1,797 images of 8 x 8 pixels that scikit-learn ships, and a logistic regression on them.

scikit-learn itself is imported when a task asks for the data, not when the names are registered.
"""

from __future__ import annotations

import numpy as np

from collective_learner.factory import FactoryRegistry
from collective_learner.learners.checks import number
from collective_learner.learners.sklearn import SklearnLearner
from collective_learner.tasks.data import ClassificationData, load_shard


@FactoryRegistry.register_dataloader("DIGITS")
def digits(
    location: str,
    train_ratio: float = 0.6,
    vote_ratio: float = 0.2,
    skew: float = 0.0,
    batch_size: int = 32,
    seed: int = 0,
) -> ClassificationData:
    """Load a shard of the digits, pixels from 0 to 1; the parameters are those of `load_shard`."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    x, y = load_digits(return_X_y=True)
    return load_shard(
        (x / 16).astype(np.float32),
        y.astype(np.int64),
        classes=10,
        location=location,
        train_ratio=train_ratio,
        vote_ratio=vote_ratio,
        skew=skew,
        batch_size=batch_size,
        seed=seed,
    )


@FactoryRegistry.register_model_architecture("SKLEARN_DIGITS", ["DIGITS"])
def sklearn_digits(
    data_loaders: ClassificationData,
    learning_rate: float = 0.03,
    alpha: float = 1e-3,
    epochs: int = 10,
    seed: int = 0,
) -> SklearnLearner:
    """Make a logistic regression, one class against the rest, that votes on its log loss.

    Parameters
    ----------
    learning_rate
        Constant step of the stochastic gradient descent.
    alpha
        Strength of the L2 penalty.
    epochs
        Passes over the training data in a proposal.
    seed
        Of the order of examples.
    """
    return logistic_learner(data_loaders, learning_rate=learning_rate, alpha=alpha, epochs=epochs, seed=seed)


def logistic_learner(
    data: ClassificationData, *, learning_rate: float, alpha: float, epochs: int, seed: int
) -> SklearnLearner:
    """Build a learner with a logistic regression for any classification data."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    return SklearnLearner(
        SGDClassifier(
            loss="log_loss",
            learning_rate="constant",
            eta0=number("learning_rate", learning_rate, above=0),
            alpha=number("alpha", alpha, at_least=0),
        ),
        data.train,
        data.vote,
        data.test,
        classes=range(data.classes),
        epochs=epochs,
        batch_size=data.batch_size,
        seed=seed,
    )
