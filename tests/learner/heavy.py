"""Learners of 200 MB, which train little: what the test of memory serves, by `--import`."""

from __future__ import annotations

import numpy as np

from collective_learner import FactoryRegistry, MachineLearningInterface

MEGABYTES = 200


@FactoryRegistry.register_dataloader("HEAVY_DATA")
def heavy_data(location: str) -> int:
    return int(location)


@FactoryRegistry.register_model_architecture("HEAVY_TORCH", ["HEAVY_DATA"])
def heavy_torch(data_loaders: int, optimizer: str = "SGD") -> MachineLearningInterface:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from collective_learner.learners.torch import PytorchLearner

    torch.set_num_threads(1)
    side = int((MEGABYTES / 4 * 1e6 / 4) ** 0.5)
    model = torch.nn.Sequential(*(torch.nn.Linear(side, side, bias=False) for _ in range(4)), torch.nn.Linear(side, 2))
    generator = torch.Generator().manual_seed(data_loaders)
    data = TensorDataset(torch.randn(4, side, generator=generator), torch.arange(4) % 2)
    loader = DataLoader(data, batch_size=2)
    stepper = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01, foreach=False)
    return PytorchLearner(model, stepper, loader, loader, loader, criterion=torch.nn.CrossEntropyLoss(), device="cpu")


@FactoryRegistry.register_model_architecture("HEAVY_SKLEARN", ["HEAVY_DATA"])
def heavy_sklearn(data_loaders: int) -> MachineLearningInterface:
    from sklearn.linear_model import SGDClassifier

    from collective_learner.learners.sklearn import SklearnLearner

    # Few examples, many features and classes: the weights are what is large.
    side = int((MEGABYTES * 1e6 / 8) ** 0.5)
    x, y = np.random.default_rng(data_loaders).normal(size=(3, side)), np.array([0, 1, 2])
    model = SGDClassifier(loss="log_loss", n_jobs=1)
    return SklearnLearner(model, (x, y), (x, y), (x, y), classes=range(side))
