"""KerasLearner with Keras on PyTorch: what must hold on every backend, as a program that prints what it found."""

import json
import os
import random
import sys

os.environ["KERAS_BACKEND"] = "torch"
sys.modules["tensorflow"] = None  # as where it is not installed; Keras looks for it

import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from collective_learner import DiffPrivConfig, KerasLearner, TrainingOptions, TrainingStoppedError  # noqa: E402

torch.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.normal(size=(50, 6)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)


def make(**options: object) -> KerasLearner:
    keras.utils.set_random_seed(4)
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(2)]
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return KerasLearner(network, (x, y), (x, y), model_fit_kwargs={"batch_size": 16, "epochs": 4}, **options)


def everything(learner: KerasLearner) -> list[object]:
    model = learner.model
    held = [each.tobytes() for each in map(keras.ops.convert_to_numpy, (*model.variables, *model.optimizer.variables))]
    return [held, random.getstate(), repr(np.random.get_state()), torch.get_rng_state().numpy().tobytes()]


def distance(learner: KerasLearner, mu: float) -> float:
    learner.mli_set_training_options(TrainingOptions(proximal_mu=mu))
    own, new = learner.mli_get_current_weights().weights, learner.mli_propose_weights().weights
    places = [index for index, each in enumerate(learner.model.weights) if each.trainable]
    return float(sum(((own[place] - new[place]) ** 2).sum() for place in places))


def stopped(learner: KerasLearner) -> bool:
    learner.fit_kwargs["callbacks"] = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: learner.mli_stop_training()
    )
    try:
        learner.mli_propose_weights()
    except TrainingStoppedError:
        return True
    return False


def refusal() -> str:
    try:
        make(diff_priv_config=DiffPrivConfig(1, 1e-5, 1, 1))
    except ValueError as error:
        return str(error)
    return ""


learner = make()
before = everything(learner)
proposed = learner.mli_propose_weights()
counted = learner.examples_trained
same = [everything(learner) == before]
verdict = learner.mli_test_weights(proposed)
same.append(everything(learner) == before)
again = learner.mli_propose_weights()
distances = [distance(learner, mu) for mu in (0.0, 0.5, 5.0)]
same += [everything(learner) == before, stopped(learner), everything(learner) == before]
learner.mli_accept_weights(proposed)
pairs = [*zip(proposed.weights, again.weights, strict=True)]
pairs += zip(proposed.weights, learner.mli_get_current_weights().weights, strict=True)
print(
    json.dumps(
        {
            "backend": keras.backend.backend(),
            "same": same,
            "bytes": all(one.tobytes() == two.tobytes() for one, two in pairs),
            "vote": verdict.vote,
            "score": learner.vote_score == verdict.vote_score,
            "distances": distances,
            "counted": counted,
            "private": refusal(),
            "examples": proposed.training_summary.examples,
        }
    )
)
