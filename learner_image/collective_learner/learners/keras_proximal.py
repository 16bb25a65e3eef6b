"""FedProx for Keras: the gradient of the proximal term joins the loss's own where the optimizer takes it.

That is the one place that every backend, every kind of model and every training step of a user passes through. The
gradient of ``mu / 2 * |w - w0|^2`` is ``mu * (w - w0)``: no graph of its own, and the loss that is told stays the loss.
The optimizer's `apply` is replaced while there is a mu, which costs a new trace of the training step; another mu costs
none. The copy of the weights at the start, which the term needs, is also what is put back after the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from collective_learner.learners.keras_devices import scope_of, tensorflow
from collective_learner.learners.keras_state import to_array


class ProximalTerm:
    """The proximal term of one model's trainings."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._optimizer = _innermost(model.optimizer)
        with scope_of(model):
            self._mu = keras.Variable(0.0, trainable=False, name="proximal_mu")
            self._starts = {
                id(variable): keras.Variable(
                    to_array(variable), dtype=variable.dtype, trainable=False, name=f"start_{index}"
                )
                for index, variable in enumerate(model.trainable_weights)
            }
        own = self._optimizer.apply

        def apply(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> Any:
            if trainable_variables is None:
                trainable_variables = model.trainable_weights
            pairs = zip(grads, trainable_variables, strict=True)
            return own([self._pulled(gradient, variable) for gradient, variable in pairs], trainable_variables)

        self._optimizer.apply = apply
        model.make_train_function(force=True)

    def start(self, mu: float) -> Mapping[int, Any]:
        """Begin a training from the weights that the model has now.

        Returns
        -------
        dict
            Variables that hold these weights, by the ids of the model's own.
        """
        self._mu.assign(mu)
        for variable in self._model.trainable_weights:
            self._starts[id(variable)].assign(variable)
        return self._starts

    def remove(self) -> None:
        """Have the model train without the term again."""
        del self._optimizer.apply
        self._model.make_train_function(force=True)

    def _pulled(self, gradient: Any, variable: Any) -> Any:
        if gradient is None:  # took no part, and is where it was
            return None
        tf = tensorflow()
        # What the replicas of a strategy give is summed.
        share = self._mu if tf is None else self._mu / tf.distribute.get_strategy().num_replicas_in_sync
        dense = keras.ops.convert_to_tensor(gradient)  # that of an embedding may be sparse; the whole term is not
        away = keras.ops.subtract(variable, self._starts[id(variable)])
        return dense + keras.ops.cast(share, dense.dtype) * keras.ops.cast(away, dense.dtype)


def _innermost(optimizer: Any) -> Any:
    """Find the optimizer that sees gradients as they are: one that scales losses scales them back before it."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer
