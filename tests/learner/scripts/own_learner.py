"""What a user of colearn brings: a learner of their own, which trains in the arrays that it was given."""

from __future__ import annotations

import copy
import json

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from collective_learner import (
    ColearnModel,
    MachineLearningInterface,
    MliFactory,
    ModelFormat,
    ProposedWeights,
    Weights,
)


class DigitsLearner(MachineLearningInterface):
    """Keeps what it accepts, and lets scikit-learn write into it."""

    criterion = "error rate"

    def __init__(self, index: int, count: int, batch_size: int = 32) -> None:
        x, y = load_digits(return_X_y=True)
        x, y = x[index::count] / 16, y[index::count]
        third = len(x) // 3
        self.train, self.vote, self.test = ((x[a : a + third], y[a : a + third]) for a in (0, third, 2 * third))
        self.batch_size = batch_size
        self.model = SGDClassifier(loss="log_loss", random_state=index)
        self.model.partial_fit(*self.train, classes=np.arange(10))
        self.vote_score = self.errors(self.vote)

    def errors(self, data) -> float:
        return 1 - self.model.score(*data)

    def mli_propose_weights(self) -> Weights:
        current = copy.deepcopy(self.mli_get_current_weights())
        for at in range(0, len(self.train[0]), self.batch_size):
            self.model.partial_fit(*(part[at : at + self.batch_size] for part in self.train))
        proposed = self.mli_get_current_weights()
        self.set_weights(current)
        return proposed

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        current = self.mli_get_current_weights()
        self.set_weights(weights)
        vote_score, test_score = self.errors(self.vote), self.errors(self.test)
        self.set_weights(current)
        return ProposedWeights(
            weights=weights, vote_score=vote_score, test_score=test_score, vote=vote_score <= self.vote_score
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        self.set_weights(weights)
        self.vote_score = self.errors(self.vote)

    def mli_get_current_weights(self) -> Weights:
        return Weights(weights={"coef": self.model.coef_, "intercept": self.model.intercept_})

    def set_weights(self, weights: Weights) -> None:
        self.model.coef_ = weights.weights["coef"]
        self.model.intercept_ = weights.weights["intercept"]

    def mli_get_current_model(self) -> ColearnModel:
        return ColearnModel(ModelFormat.PICKLE_WEIGHTS_ONLY, "", self.model.coef_.tobytes())


class SimpleFactory(MliFactory):
    """The smallest factory there can be."""

    def get_version(self) -> str:
        return "0.0.1"

    def get_models(self):
        return {"DIGITS_MODEL": {"batch_size": 32}}

    def get_dataloaders(self):
        return {"DIGITS_DATA": {}}

    def get_compatibilities(self):
        return {"DIGITS_MODEL": {"DIGITS_DATA"}}

    def get_mli(self, model_name, model_params, dataloader_name, dataset_params) -> MachineLearningInterface:
        index, count = json.loads(dataset_params)["location"].split("/")
        return DigitsLearner(int(index), int(count), **json.loads(model_params))
