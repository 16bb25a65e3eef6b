"""What a learner costs over the loop that it wraps: the same model, data and batches, by hand and by the learner.

Ours is all that a server has a learner do for a proposal: options, training, checks, and the weights laid out for the
wire. The loop by hand starts from the same weights each time, as a proposal does; to put them back takes part in
neither. Each framework has a process of its own, in which the two take turns on one thread. What is measured is the
processor's time, which other programs on the machine disturb least; nothing here waits for anything else.

``python -m tests.benchmarks.training torch 15`` prints the seconds of both as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from collective_learner.formats import SAFETENSORS
from collective_learner.learning import Learning
from collective_learner.metrics import LearnerMetrics
from collective_learner.mli import TrainingOptions
from collective_learner.template import Template

Run = Callable[[], float]
"""Trains once, from the same start, and gives the processor's seconds that the training took."""

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

_RNG = np.random.default_rng(0)


def with_learner(learner: Any) -> Run:
    """Propose as the server has it."""
    template = Template(learner.mli_get_current_weights())
    learning = Learning(learner, template=template, weights_format=SAFETENSORS, metrics=LearnerMetrics())

    def run() -> float:
        started = time.process_time()
        learning.train(TrainingOptions())
        return time.process_time() - started

    return run


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make up images, 28 x 28 in one colour, of ten classes."""
    return _RNG.normal(size=(count, 28, 28, 1)).astype(np.float32), _RNG.integers(0, 10, count)


def torch_runs() -> tuple[Run, Run]:
    """A small convolutional network, 100 batches of 32."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from collective_learner.learners.torch import PytorchLearner

    torch.manual_seed(0)
    x, y = images(3200)
    data = TensorDataset(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y))
    loader = DataLoader(data, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0))
    votes = DataLoader(TensorDataset(*data[:32]), batch_size=32)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    learner = PytorchLearner(model, optimizer, loader, votes, criterion=loss)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = optimizer.state_dict()

    def bare() -> float:
        model.load_state_dict(start)
        optimizer.load_state_dict(fresh)
        model.train()
        started = time.process_time()
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss(model(inputs), labels).backward()
            optimizer.step()
        seconds = time.process_time() - started
        model.load_state_dict(start)
        return seconds

    return with_learner(learner), bare


def keras_runs() -> tuple[Run, Run]:
    """The same in Keras, by `fit`."""
    import keras

    from collective_learner.learners.keras import KerasLearner

    keras.utils.set_random_seed(0)
    x, y = images(3200)
    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, activation="relu"), keras.layers.MaxPooling2D(),
        keras.layers.Flatten(), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10),
    ])  # fmt: skip
    model.compile(
        optimizer=keras.optimizers.Adam(0.001), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    learner = KerasLearner(model, (x, y), (x[:32], y[:32]), model_fit_kwargs={"batch_size": 32})
    start = model.get_weights()

    def bare() -> float:
        started = time.process_time()
        model.fit(x, y, batch_size=32, verbose=0)
        seconds = time.process_time() - started
        model.set_weights(start)
        for variable in model.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(keras.ops.zeros_like(variable))
        return seconds

    return with_learner(learner), bare


def sklearn_runs() -> tuple[Run, Run]:
    """A logistic regression on 64 features and ten classes, by partial_fit, 5 passes over 2,000 examples."""
    import copy

    from sklearn.linear_model import SGDClassifier

    from collective_learner.learners.sklearn import SklearnLearner

    x, y = _RNG.normal(size=(2000, 64)).astype(np.float32), _RNG.integers(0, 10, 2000)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, random_state=0)
    learner = SklearnLearner(model, (x, y), (x[:32], y[:32]), classes=range(10), epochs=5)
    first = copy.deepcopy(model).partial_fit(x[:1], y[:1], classes=range(10))

    def bare() -> float:
        own = copy.deepcopy(first)
        rng = np.random.default_rng(0)
        started = time.process_time()
        for _ in range(5):
            order = rng.permutation(len(y))
            for begin in range(0, len(y), 32):
                batch = order[begin : begin + 32]
                own.partial_fit(x[batch], y[batch])
        return time.process_time() - started

    return with_learner(learner), bare


def boosting_runs() -> tuple[Run, Run]:
    """Ten trees more on 20,000 examples, for an ensemble that has thirty; by hand, scikit-learn's own warm start."""
    import copy

    from sklearn.ensemble import HistGradientBoostingClassifier

    from collective_learner.learners.sklearn import SklearnLearner

    x = _RNG.normal(size=(20_000, 30)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    model = HistGradientBoostingClassifier(max_iter=30, early_stopping=False, warm_start=True, random_state=0).fit(x, y)
    model.set_params(max_iter=400)
    learner = SklearnLearner(model, (x, y), (x[:32], y[:32]), classes=range(2), epochs=10)
    model.set_params(max_iter=40)

    def bare() -> float:
        own = copy.deepcopy(model)
        started = time.process_time()
        own.fit(x, y)
        return time.process_time() - started

    return with_learner(learner), bare


RUNS = {
    "torch": ("PyTorch, a CNN, 100 batches", torch_runs),
    "keras": ("Keras, the same CNN, 100 batches", keras_runs),
    "sklearn": ("scikit-learn, logistic regression, 315 batches", sklearn_runs),
    "boosting": ("scikit-learn, ten boosted trees", boosting_runs),
}


def timed(name: str, repeats: int) -> tuple[list[float], list[float]]:
    """Measure one framework in a process of its own: ours and by hand, in turn."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.training", name, str(repeats)],
        env={**os.environ, **_ONE_THREAD},
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout)
    return found["ours"], found["bare"]


def main(name: str, repeats: int) -> None:
    """Measure in this process."""
    ours, bare = RUNS[name][1]()
    for run in (ours, bare, ours, bare):  # compiled, and its memory there
        run()
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    for turn in range(repeats):
        for kind, run in (("ours", ours), ("bare", bare)) if turn % 2 else (("bare", bare), ("ours", ours)):
            seconds[kind].append(run())
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
