"""A data loader and a model of one's own, registered under names that anyone who drives a learner can ask for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from collective_learner import FactoryRegistry, SklearnLearner

Examples = tuple[np.ndarray, np.ndarray]


class SiteData(NamedTuple):
    """What one site has: images and their digits, to train on, to vote on, and to test on."""

    train: Examples
    vote: Examples
    test: Examples


@FactoryRegistry.register_dataloader("TUTORIAL_DIGITS")
def load_images(location: str, train_ratio: float = 0.6) -> SiteData:
    """Load the images of one site; the location "2/5" is the third of five."""
    site, sites = map(int, location.split("/"))
    images, digits = load_digits(return_X_y=True)
    images, digits = images[site::sites] / 16, digits[site::sites]
    train_end = int(len(digits) * train_ratio)
    vote_end = (train_end + len(digits)) // 2
    return SiteData(
        train=(images[:train_end], digits[:train_end]),
        vote=(images[train_end:vote_end], digits[train_end:vote_end]),
        test=(images[vote_end:], digits[vote_end:]),
    )


@FactoryRegistry.register_model_architecture("TUTORIAL_LOGISTIC", ["TUTORIAL_DIGITS"])
def build_learner(data_loaders: SiteData, learning_rate: float = 0.02, epochs: int = 5) -> SklearnLearner:
    """Make a learner with a logistic regression."""
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=learning_rate)
    return SklearnLearner(
        model,
        train_data=data_loaders.train,
        vote_data=data_loaders.vote,
        test_data=data_loaders.test,
        classes=range(10),
        epochs=epochs,
    )
