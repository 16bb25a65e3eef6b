"""What breaks privacy by example in a Keras model, found before anything is trained, and named.

Nothing is replaced in silence: a model whose BatchNormalization became something else is another model, and the
learners of a task would no longer hold the same one. And because a list of layers is never complete, the model is asked
itself: whether what it makes of one example changes with another one in its batch, and whether training changes what
gets no noise. (A private training shows the model one example at a time, so that mixing could not break the promise;
but then it would train something else than what is tested.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from collective_learner.learners.keras_devices import tensorflow
from collective_learner.learners.keras_state import seed_everything, to_array

_NEEDED = 3


def refuse_unsuitable(model: Any) -> None:
    """Refuse what cannot be trained by DP-SGD.

    Raises
    ------
    ValueError
        The backend, a layer, a weight, the optimizer, or the model; the message names it.
    """
    if tensorflow() is None:
        raise ValueError(f"diff_priv_config: Keras runs on {keras.backend.backend()}, TensorFlow is needed for it")
    for layer in model._flatten_layers():
        what = f"model: {layer.name!r} is {type(layer).__name__}"
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            raise ValueError(
                f"{what}, whose statistics mix examples; with diff_priv_config use GroupNormalization or "
                "LayerNormalization, or freeze it (trainable=False)"
            )
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            raise ValueError(
                f"{what}, which holds statistics of data that got no noise; with diff_priv_config give it its mean and "
                "variance as arguments, from data that is no secret"
            )
    if not model.trainable_variables:
        raise ValueError("model: it has no weight that is trained")
    for variable in model.trainable_variables:
        if variable.dtype not in ("float32", "float64"):
            raise ValueError(
                f"model: {variable.path!r} has type {variable.dtype}; with diff_priv_config float32 or float64 is "
                "needed, since shorter numbers round clipped gradients up (the policy mixed_bfloat16 has float32)"
            )
    if hasattr(model.optimizer, "inner_optimizer") or model.optimizer.loss_scale_factor is not None:
        raise ValueError(
            f"optimizer: {type(model.optimizer).__name__} scales the loss, which diff_priv_config does not allow; "
            "mixed_bfloat16 needs no scaling"
        )
    if getattr(model.train_step, "__func__", None) is not keras.Model.train_step:
        raise ValueError(
            "model: it has a train_step of its own, which a private training replaces; write compute_loss instead"
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1:
        raise ValueError(f"model: it is on {replicas} devices; diff_priv_config needs it on one")


def refuse_mixing(model: Any, inputs: Any) -> None:
    """Refuse a model that mixes examples, or changes as it is trained otherwise than by its optimizer.

    The caller puts back what a forward pass changes.

    Parameters
    ----------
    inputs
        Of some examples; the first three of them are looked at.

    Raises
    ------
    ValueError
        It does; the message names the first layer, or the weight, of which this is true.
    """
    leaves = keras.tree.flatten(inputs)
    if len(leaves[0]) < _NEEDED:
        return
    held = [to_array(variable) for variable in model.weights]
    first, other = (_firsts(model, keras.tree.map_structure(lambda x, at=at: x[[0, at]], inputs)) for at in (1, 2))
    for variable, before in zip(model.weights, held, strict=True):
        if not np.array_equal(to_array(variable), before, equal_nan=True):
            raise ValueError(
                f"model: {variable.path!r} changes as the model is trained, without noise; it would carry what is in "
                "the data, so diff_priv_config does not allow it"
            )
    for (name, one), (_, two) in zip(first, other, strict=False):
        if one.shape != two.shape or not np.allclose(one, two, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"model: {name!r} mixes the examples of a batch: what it makes of one changes with another, so no "
                "gradient belongs to one example; diff_priv_config cannot hold"
            )


def _firsts(model: Any, inputs: Any) -> list[tuple[str, Any]]:
    """Run a batch, and give what each layer made of its first example, in the order in which they were done."""
    made: list[tuple[str, Any]] = []
    seed_everything(model, 0)  # the same dropout in both batches
    with _noting(model, made):
        forward(model, inputs)
    return made


def forward(model: Any, inputs: Any) -> Any:
    """Run a model as its own training step would."""
    return model(inputs, training=True) if model._call_has_training_arg else model(inputs)


@contextmanager
def _noting(model: Any, made: list[tuple[str, Any]]) -> Iterator[None]:
    """Note what layers make, in their own `call`, where it has been since before they were wrapped."""
    layers = list(model._flatten_layers())

    def noted(layer: Any) -> Any:
        own = layer.call

        def call(*args: Any, **more: Any) -> Any:
            outputs = own(*args, **more)
            for each in keras.tree.flatten(outputs):
                if hasattr(each, "shape") and len(each.shape) and each.shape[0]:
                    made.append((layer.name, np.asarray(keras.ops.convert_to_numpy(each[0]), dtype=np.float64)))
            return outputs

        return call

    try:
        for layer in layers:
            vars(layer)["call"] = noted(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)
