"""KerasLearner: what it is given works, or is refused by one error that names it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from collective_learner import KerasLearner

from .models import LAYERS, Slices, X, Y, make

SLICES = tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    ("data", "fit", "examples"),
    [
        (lambda: (X, Y), {}, 50),
        (lambda: (X, Y, np.ones(50)), {"validation_split": 0.2}, 40),
        (Slices, {}, 50),
        (lambda: SLICES.batch(16), {}, 50),
        (lambda: SLICES.batch(16, drop_remainder=True), {}, 48),
        (
            lambda: SLICES.filter(lambda x, y: y > 0).batch(16),
            {},
            int((Y > 0).sum()),
        ),
        (lambda: SLICES.repeat().batch(5), {"steps_per_epoch": 7}, 35),
    ],
    ids=["arrays", "weighted", "py", "tf", "tf whole", "tf filtered", "tf endless"],
)
def test_loaders_of_every_kind_and_their_examples(data, fit, examples: int) -> None:
    learner = make("linear", data=data(), model_fit_kwargs=fit)
    summary = learner.mli_propose_weights().training_summary
    assert summary.examples == examples
    assert 0 < summary.metrics["loss"] < 10


REFUSED = [
    ({"model_fit_kwargs": {"epoch": 3}}, "model_fit_kwargs: fit has no argument 'epoch'; it has batch_size, epochs"),
    ({"model_fit_kwargs": {"x": X}}, "model_fit_kwargs: 'x' is decided by the learner"),
    ({"model_evaluate_kwargs": {"step": 3}}, "model_evaluate_kwargs: evaluate has no argument 'step'"),
    ({"model_evaluate_kwargs": {"return_dict": False}}, "model_evaluate_kwargs: 'return_dict' is decided"),
    ({"criterion": "f1"}, "criterion: 'f1', the model is compiled with"),
    ({"test_criterion": "f1"}, "test_criterion: 'f1', the model is compiled with"),
    ({"model_fit_kwargs": [("epochs", 3)]}, r"model_fit_kwargs: \[\('epochs', 3\)\]; a dict is needed"),
    ({"model_fit_kwargs": {"epochs": 0}}, "model_fit_kwargs: epochs: 0, a whole number of at least 1"),
    ({"model_fit_kwargs": {"epochs": "2"}}, "model_fit_kwargs: epochs: '2'"),
    ({"model_fit_kwargs": {"batch_size": 0}}, "model_fit_kwargs: batch_size: 0"),
    ({"model_fit_kwargs": {"steps_per_epoch": -1}}, "model_fit_kwargs: steps_per_epoch: -1"),
    ({"model_fit_kwargs": {"initial_epoch": 2, "epochs": 2}}, "initial_epoch: 2, but epochs is 2"),
    ({"model_evaluate_kwargs": {"steps": 0}}, "model_evaluate_kwargs: steps: 0"),
    ({"data": X}, "train_loader: a ndarray; arrays"),
    ({"data": None}, "train_loader: a NoneType; arrays"),
    ({"data": "train"}, "train_loader: a str; arrays"),
    ({"data": (X.tolist(), Y.tolist())}, "train_loader: x is, or holds, a float; arrays are needed$"),
    ({"data": ({"a": X, "b": X[:9]}, Y)}, "train_loader: x has 50, x has 9 examples"),
    ({"data": (X, Y[:49])}, "train_loader: x has 50, y has 49 examples; as many of each"),
    ({"data": SLICES}, "train_loader: a tf.data.Dataset of single examples"),
    ({"data": SLICES.batch(5).repeat()}, "train_loader: it has no end; .* steps_per_epoch in model_fit_kwargs"),
    ({"votes": SLICES.batch(5).repeat()}, "vote_loader: it has no end; .* steps in model_evaluate_kwargs"),
    ({"votes": (X[:, :4], Y)}, "vote_loader: the model fails on it: Input 0 .* to have value 6"),
    ({"votes": (X, Y + 9)}, r"vote_loader: .* outside the valid range of \[0, 3\)\.$"),
    ({"data": iter([(X, Y)])}, "train_loader: a list_iterator can be gone through only once"),
    ({"data": (X[:0], Y[:0])}, "train_loader: no examples"),
    ({"data": tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(2)}, "train_loader: no batches"),
    ({"data": (X,)}, "train_loader: 1 arrays"),
    ({"diff_priv_config": object()}, "diff_priv_config: .* a DiffPrivConfig is needed"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_together_is_refused_by_name(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("linear", **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (object, "model: object, a keras.Model is needed"),
        (lambda: keras.Sequential([LAYERS.Dense(3)]), "model: it has no weights yet"),
        (lambda: keras.Sequential([keras.Input((6,)), LAYERS.Dense(3)]), "model: it must be compiled"),
    ],
)
def test_a_model_that_is_not_ready_is_refused(model, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasLearner(model(), (X, Y), (X, Y))
