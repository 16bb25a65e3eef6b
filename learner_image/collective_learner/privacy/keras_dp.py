"""DP-SGD for Keras on TensorFlow: a training of which the accountant's assumptions are true.

A step of our own takes the place of `fit`. What must be so, and is only nearly so elsewhere:

- Batches are drawn by Poisson sampling from all examples, at a rate that the random numbers express exactly. A batch
  may be empty; it is a step like any other, and its noise is what it adds.
- The model is shown one example at a time, in a batch of one. So nothing can mix examples: not a layer, not a loss. Its
  gradient over all weights that are trained is clipped as one vector; one that is not finite counts as nothing.
- Noise and batches come from the operating system's randomness, never from the task's seed, which everybody knows: who
  can draw the noise again can take it off. Noise is drawn in 64 bits, for the sake of its tails.
- What does not depend on data is added after the noise: FedProx's term, the optimizer's weight decay, and the gradient
  of regularizers, which the losses of examples are freed of. What a layer adds for its activities is an example's own.
- What leaves is the weights that got noise. No loss is told, no metric, and what else a training would change in the
  model (running statistics) stays as it was, or is refused.

Source: Abadi et al., Deep Learning with Differential Privacy, CCS 2016.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from collective_learner.learners.checks import whole_number
from collective_learner.learners.keras_devices import tensorflow
from collective_learner.learners.keras_state import seed_states
from collective_learner.privacy.keras_checks import forward, refuse_mixing, refuse_unsuitable
from collective_learner.privacy.keras_examples import drawn_examples, split
from collective_learner.privacy.spending import Spending, checked, rate_of

if TYPE_CHECKING:
    from collective_learner.mli import DiffPrivConfig, TrainingSummary

_logger = logging.getLogger(__name__)

_RATES = 1 << 53
"""numpy's random numbers are multiples of one in so many."""

_HELD = 1 << 31
"""Bytes that the gradients of single examples may take, where many are computed together."""

_AT_ONCE = 10
"""Examples whose gradients are under way at the same time, where they are not computed together."""


class PrivateTraining:
    """Trains a compiled model by DP-SGD while its budget lasts.

    Parameters
    ----------
    model
        As the learner has it; its optimizer takes the steps.
    loader
        See `drawn_examples`.
    config
        What may be spent, and how.
    options
        Of `fit`: ``batch_size``, ``epochs`` and ``steps_per_epoch`` say how much a training is.
    num_microbatches
        Parts in which a batch is computed, to hold less at once; the result is the same. By default as many as it needs
        to hold at most 2 GiB of gradients on a GPU, and one on a CPU.
    folder
        Of the ledger, see `open_ledger`.

    Raises
    ------
    ValueError
        Something here would break the promise; the message names it. A `LedgerError` when there is no ledger to use.
    """

    def __init__(
        self,
        model: Any,
        loader: object,
        config: DiffPrivConfig,
        *,
        options: Mapping[str, Any],
        num_microbatches: int | None,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        refuse_unsuitable(model)
        self._model, self._config = model, checked(config)
        self._examples = examples = drawn_examples(loader, options)
        refuse_mixing(model, examples.at(np.arange(min(3, examples.count)))["x"])
        self._trained = list(model.trainable_variables)
        tf = tensorflow()
        self._noise = tf.random.Generator.from_state(_entropy(), alg="philox")
        self._sum, together = self._traced(together=_gains_together())
        self._piece = examples.count
        if num_microbatches is not None:
            parts = whole_number("num_microbatches", num_microbatches, at_least=1)
            self._piece = math.ceil(examples.expected / parts)
        elif together:  # a gradient as it is, and clipped
            self._piece = max(1, _HELD // sum(8 * math.prod(each.shape) for each in self._trained))
        self._step: tuple[Any, Any] | None = None
        self.spending = Spending(
            config,
            rate=rate_of(examples.expected, examples.count, resolution=_RATES),
            steps=examples.steps,
            examples=examples.count,
            data=examples.identity(),
            folder=folder,
        )

    def train(self, *, go_on: Callable[[], None], count: Callable[[int], None] = lambda _: None) -> TrainingSummary:
        """Train, and charge for it.

        Parameters
        ----------
        go_on
            Raises between two batches when the training is to end.
        count
            Told after each batch of how many examples it had in the mean; how many it had, would tell who is in it.
        """
        if [id(each) for each in self._model.trainable_variables] != [id(each) for each in self._trained]:
            raise ValueError("model: other weights are trained than when the learner was made, with diff_priv_config")
        chance = np.random.default_rng(secrets.randbits(256))
        self._noise.state.assign(_entropy())
        step, seen, planned = self._stepping(), 0, self.spending.planned
        with self.spending.charged() as taken:
            for _ in range(planned.steps):
                go_on()
                taken.step()
                places = np.flatnonzero(chance.random(self._examples.count) < planned.sample_rate)
                total = [np.zeros(each.shape, each.dtype) for each in self._trained]
                for piece in split(places, self._piece):
                    found = self._sum(self._examples.at(piece), seen)
                    total = [one + other for one, other in zip(total, found, strict=True)]
                    seen += len(piece)
                step(total)
                count(self._examples.expected)
        self._model.optimizer.finalize_variable_values(self._trained)  # as `fit` does
        return self.spending.summary()

    def _traced(self, *, together: bool) -> tuple[Any, bool]:
        """Compile the sum of the clipped gradients of a piece of a batch; tell whether it computes them together.

        On a GPU the examples are computed together where that is possible, which with recurrent layers it is not. On a
        CPU they are computed one by one, some at a time: that takes up to twice as long, does with any layer, and the
        kernels of TensorFlow 2.21 for CPUs write past their memory where they multiply many batches of one example at
        once (tensorflow#117700).
        """
        tf = sys.modules["tensorflow"]
        form = keras.tree.map_structure(
            lambda rows: tf.TensorSpec([None, *rows.shape[1:]], tf.as_dtype(rows.dtype)), self._examples.at(slice(0, 1))
        )
        compiled = tf.function(self._sum_together if together else self._sum_by_turns, autograph=False)
        try:
            return compiled.get_concrete_function(form, tf.TensorSpec([], tf.int64)), together
        except (NotImplementedError, TypeError, ValueError):
            if not together:
                raise
            _logger.info("privacy: gradients of this model are computed one by one; TensorFlow has no other way")
            return self._traced(together=False)

    def _sum_together(self, examples: Any, seen: Any) -> list[Any]:
        tf = sys.modules["tensorflow"]
        values = [tf.convert_to_tensor(each.value) for each in self._trained]
        numbers = seen + tf.range(_count(examples), dtype=tf.int64)
        clipped = tf.vectorized_map(lambda each: self._clipped(values, *each), (examples, numbers))
        return [tf.reduce_sum(each, axis=0) for each in clipped]

    def _sum_by_turns(self, examples: Any, seen: Any) -> list[Any]:
        tf = sys.modules["tensorflow"]
        values = [tf.convert_to_tensor(each.value) for each in self._trained]
        count = tf.cast(_count(examples), tf.int64)

        def added(at: Any, sums: list[Any]) -> tuple[Any, list[Any]]:
            example = keras.tree.map_structure(lambda rows: rows[at], examples)
            clipped = self._clipped(values, example, seen + at)
            return at + 1, [one + other for one, other in zip(sums, clipped, strict=True)]

        start = (tf.zeros([], tf.int64), [tf.zeros_like(each) for each in values])
        _, sums = tf.while_loop(lambda at, _: at < count, added, start, parallel_iterations=_AT_ONCE)
        return list(sums)

    def _clipped(self, values: list[Any], example: Any, number: Any) -> list[Any]:
        """Give the gradient of one example, as long as the clipping norm at most."""
        tf = sys.modules["tensorflow"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = self._loss(values, keras.tree.map_structure(lambda part: part[None], example), number)
        found = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradient = [tf.convert_to_tensor(each) for each in found]
        length = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(tf.cast(each, tf.float32))) for each in gradient]))
        factor = self._config.max_grad_norm / tf.maximum(length, self._config.max_grad_norm)
        factor = tf.where(tf.math.is_finite(length), factor, 0.0)
        # Nothing is what becomes of nothing times infinity here.
        return [tf.math.multiply_no_nan(each, tf.cast(factor, each.dtype)) for each in gradient]

    def _loss(self, values: list[Any], example: Any, number: Any) -> Any:
        """Compute the loss of a batch of one example, without regularizers, and change nothing of the model by it."""
        tf = sys.modules["tensorflow"]
        # Each example has dropout of its own.
        shift = tf.stack([number, tf.zeros_like(number)])
        seeds = [(state, tf.convert_to_tensor(state.value) + shift) for state in seed_states(self._model)]
        with keras.StatelessScope([*zip(self._trained, values, strict=True), *seeds], collect_losses=True):
            outputs = forward(self._model, example["x"])
            loss = self._model._compute_loss(**example, y_pred=outputs, training=True)
            return tf.cast(loss, tf.float32) - tf.cast(self._regularization(), tf.float32)

    def _regularization(self) -> Any:
        losses = [each.regularizer(each) for each in self._trained if each.regularizer is not None]
        return keras.ops.sum(keras.ops.stack(losses)) if losses else 0.0

    def _stepping(self) -> Callable[[list[Any]], None]:
        """Compile what makes a step of a sum, anew when the optimizer's `apply` is another: FedProx replaces it."""
        tf = sys.modules["tensorflow"]
        apply = vars(self._model.optimizer).get("apply")
        if self._step is None or self._step[0] is not apply:
            self._step = (apply, tf.function(self._take_step, autograph=False))
        step: Callable[[list[Any]], None] = self._step[1]
        return step

    def _take_step(self, total: list[Any]) -> None:
        tf = sys.modules["tensorflow"]
        deviation = self._config.noise_multiplier * self._config.max_grad_norm
        with tf.GradientTape() as tape:
            regularization = tf.convert_to_tensor(self._regularization())
        own = tape.gradient(
            regularization, [each.value for each in self._trained], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        gradient = []
        for clipped, further in zip(total, own, strict=True):
            noise = self._noise.normal(tf.shape(clipped), stddev=deviation, dtype=tf.float64)
            noisy = (clipped + tf.cast(noise, clipped.dtype)) / self._examples.expected
            gradient.append(noisy + tf.cast(further, noisy.dtype))
        self._model.optimizer.apply(gradient, self._trained)


def _gains_together() -> bool:
    """Whether gradients of several examples are computed faster together: see `PrivateTraining._traced`."""
    return bool(sys.modules["tensorflow"].config.list_logical_devices("GPU"))


def _count(examples: Any) -> Any:
    tf = sys.modules["tensorflow"]
    return tf.shape(keras.tree.flatten(examples)[0])[0]


def _entropy() -> Any:
    """Give a state for TensorFlow's Philox generator from the operating system's randomness: a counter and a key."""
    return np.frombuffer(os.urandom(24), dtype=np.int64)
