"""Five learners with a Keras network learn to read digits together, in one process and one plain loop.

    python examples/tutorials/keras_tutorial.py [ROUNDS]

`keras_tutorial.md` walks through it.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from collective_learner import (
    CollectivePlot,
    KerasLearner,
    Results,
    collective_learning_round,
    initial_result,
    normalize_img,
    print_results,
    set_equal_weights,
)

n_learners = 5
n_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
vote_threshold = 0.5
batch_size = 32

images, labels = load_digits(return_X_y=True)
images = (images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)


def loaders(site: int) -> list[tf.data.Dataset]:
    """Give one site's images to train on, to vote on, and to test on: no two sites share any."""
    mine = np.random.default_rng(seed=7).permutation(len(labels))[site::n_learners]
    parts = np.split(mine, [int(0.6 * len(mine)), int(0.8 * len(mine))])
    return [
        tf.data.Dataset.from_tensor_slices((images[part], labels[part])).map(normalize_img).batch(batch_size)
        for part in parts
    ]


def network() -> keras.Model:
    """Make a small convolutional network, ready to be trained."""
    model = keras.Sequential(
        [
            keras.Input(shape=(8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


all_learner_models = []
for site in range(n_learners):
    train_loader, vote_loader, test_loader = loaders(site)
    all_learner_models.append(
        KerasLearner(
            model=network(),
            train_loader=train_loader,
            vote_loader=vote_loader,
            test_loader=test_loader,
            criterion="accuracy",
            minimise_criterion=False,
            model_fit_kwargs={"epochs": 5, "shuffle": False},
        )
    )

set_equal_weights(all_learner_models)

results = Results()
results.data.append(initial_result(all_learner_models))

plot = CollectivePlot(score_name=all_learner_models[0].criterion)

for round_index in range(n_rounds):
    results.data.append(collective_learning_round(all_learner_models, vote_threshold, round_index))
    print_results(results)
    plot.plot_results_and_votes(results)

plot.block()
