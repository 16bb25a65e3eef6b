"""The learners of a setting, built by the very loaders and models that a task file names.

All methods of a comparison see the same shards, and are judged on the same examples: the union of the learners' test
splits, which nobody trains or votes on. The judge is a learner of the same kind whose data are the unions of all
learners' splits; trained by itself, it is the centralised model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from collective_learner.factory import DefaultMliFactory, FactoryRegistry
from collective_learner.mli import MachineLearningInterface, Weights
from collective_learner.tasks import load_builtin_tasks
from collective_learner.tasks.data import ClassificationData, Examples


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model on data that are cut into sites.

    Parameters
    ----------
    model, loader
        Their registered names.
    skew
        The loader's: the share of the examples that are dealt out by label.
    learners
        How many sites.
    passes
        Over a site's training data that each method has, in all.
    epochs
        Passes in one training, unless a method says otherwise.
    batch_size
        The loader's. For the logistic regression, which steps by the example, it says only how many examples
        scikit-learn is handed in one call.
    """

    model: str
    loader: str
    skew: float
    learners: int = 5
    passes: int = 200
    epochs: int = 10
    batch_size: int = 32

    def sites(self, seed: int, *, epochs: int) -> dict[str, MachineLearningInterface]:
        """Make every site's learner, by name."""
        load_builtin_tasks()
        factory = DefaultMliFactory()
        return {
            f"learner-{index}": factory.get_mli(
                self.model,
                json.dumps({"seed": seed, "epochs": epochs}),
                self.loader,
                json.dumps({"location": self._location(index), **self._data(seed)}),
            )
            for index in range(self.learners)
        }

    def union(self, seed: int) -> MachineLearningInterface:
        """Make a learner that has everybody's data: splits are joined with their like."""
        load_builtin_tasks()
        loader = FactoryRegistry.dataloaders[self.loader]
        shards: list[ClassificationData] = [
            loader.call(self._location(index), self._data(seed)) for index in range(self.learners)
        ]
        data = ClassificationData(
            train=_joined([shard.train for shard in shards]),
            vote=_joined([shard.vote for shard in shards]),
            test=_joined([shard.test for shard in shards]),
            classes=shards[0].classes,
            batch_size=shards[0].batch_size,
        )
        model = FactoryRegistry.model_architectures[self.model]
        learner = model.call(data, {"seed": seed, "epochs": self.epochs})
        assert isinstance(learner, MachineLearningInterface)
        return learner

    def _location(self, index: int) -> str:
        return f"{index}/{self.learners}"

    def _data(self, seed: int) -> dict[str, Any]:
        return {"skew": self.skew, "batch_size": self.batch_size, "seed": seed}


def accuracy(judge: MachineLearningInterface, weights: Weights) -> float:
    """Score weights on the common test set."""
    return judge.mli_test_weights(weights).test_score


def _joined(parts: list[Examples]) -> Examples:
    return Examples(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))
