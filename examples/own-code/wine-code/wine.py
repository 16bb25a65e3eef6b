"""A data loader and a model of one's own, as a ConfigMap brings them into learners: no image is built."""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import SGDClassifier

from collective_learner import FactoryRegistry, SklearnLearner

Part = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Cellar:
    """One site's wines: to train on, to judge proposals by, and to watch."""

    train: Part
    vote: Part
    test: Part


@FactoryRegistry.register_dataloader("WINE")
def cellar(location: str) -> Cellar:
    """Take every n-th wine; the location "2/3" is the last of three sites."""
    site, sites = map(int, location.split("/"))
    found = load_wine()
    x = ((found.data - found.data.mean(axis=0)) / found.data.std(axis=0))[site::sites]
    y = found.target[site::sites]
    order = np.random.default_rng(site).permutation(len(y))  # they come sorted by their kind
    train, vote, test = np.split(order, [int(0.6 * len(y)), int(0.8 * len(y))])
    return Cellar((x[train], y[train]), (x[vote], y[vote]), (x[test], y[test]))


@FactoryRegistry.register_model_architecture("WINE_LOGISTIC", ["WINE"])
def logistic(data_loaders: Cellar, learning_rate: float = 0.01, epochs: int = 3, seed: int = 0) -> SklearnLearner:
    """Make a learner with a logistic regression."""
    return SklearnLearner(
        SGDClassifier(loss="log_loss", learning_rate="constant", eta0=learning_rate),
        data_loaders.train,
        data_loaders.vote,
        data_loaders.test,
        classes=[0, 1, 2],
        epochs=epochs,
        seed=seed,
    )
