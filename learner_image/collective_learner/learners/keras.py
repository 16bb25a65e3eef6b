"""A learner around a compiled Keras model and its data.

The constructor is the one that users of Fetch.ai colearn know, for Keras 3 on any of its backends. Only what Keras
documents is called (`fit`, `evaluate`, weights, the optimizer's variables), so a model may have a training step of its
own; what else a training touches is put back, see `keras_state`. Weights travel as the list that `get_weights` gives.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras

from collective_learner.learners.checks import whole_number
from collective_learner.learners.common import (
    derive_seed,
    fingerprint,
    has_nan,
    is_finite,
)
from collective_learner.learners.judging import JudgingLearner
from collective_learner.learners.keras_callbacks import Counting, Stopping
from collective_learner.learners.keras_checks import checked_options, errors_of_computations, ready, telling_line
from collective_learner.learners.keras_data import as_arguments, batch_size_of, examples_of
from collective_learner.learners.keras_devices import memory_in_words, scope_of
from collective_learner.learners.keras_proximal import ProximalTerm
from collective_learner.learners.keras_state import (
    Held,
    each_array,
    form_of,
    fresh_state,
    learning_rates,
    left_as_it_was,
    load_arrays,
    names_of,
    seed_everything,
    seed_of_process,
)
from collective_learner.learners.memory import is_out_of_memory, out_of_memory
from collective_learner.learners.steered import refuse_diverged
from collective_learner.mli import (
    OptionRefusedError,
    TrainingOptions,
    TrainingSummary,
    Weights,
)

if TYPE_CHECKING:
    from collective_learner.export.exporter import Exporter
    from collective_learner.mli import Array, DiffPrivConfig
    from collective_learner.privacy.keras_dp import PrivateTraining


class KerasLearner(JudgingLearner[Held]):
    """A learner for Keras models.

    FedProx's proximal term, over the weights that are trained, enters the gradient of each batch; the loss that is told
    is without it.

    A training is seeded from the weights that it starts from, the number of the round, and `seed`. A `tf.data.Dataset`
    that shuffles by itself keeps a state of its own that nobody can put back: arrays, which `fit` shuffles, and
    PyDatasets give the same training again.

    Parameters
    ----------
    model
        Built, and compiled with an optimizer and a loss. Tied weights travel once; bfloat16 travels as float32.
    train_loader, vote_loader, test_loader
        What `fit` and `evaluate` take and can go through again and again: see `keras_data.as_arguments`. Without
        `test_loader` the test score is 0.
    need_reset_optimizer
        Every training starts with a fresh optimizer. When False it goes on from the last proposal of this learner that
        was accepted, at the cost of another copy of the optimizer's variables.
    minimise_criterion
        Whether a lower score is the better one in a vote.
    criterion
        Which of the values that `evaluate` gives is the score: ``"loss"``, or a metric that the model is compiled with.
    model_fit_kwargs, model_evaluate_kwargs
        Further arguments of `fit` and `evaluate`, such as ``{"steps_per_epoch": 100}`` and ``{"steps": 10}``.
    diff_priv_config
        Train by DP-SGD within this budget, see `collective_learner.privacy`; needs Keras on TensorFlow. Batches are
        then drawn by Poisson sampling from arrays, the same number of them and of the same size on average, a training
        does not repeat bit by bit, and no loss is told. Of `model_fit_kwargs` only those may be given that say how much
        a training is.
    test_criterion
        Which of the values is the test score, for watching only. By default that of the vote.
    seed
        Of the randomness of trainings. By default from the state that Python's and numpy's generators have now.
    privacy_folder
        Where the ledger of what is spent is kept, a folder for this data set alone; by default where the environment
        variable COLLECTIVE_STATE_DIR says.
    num_microbatches
        Parts in which a private training computes a batch, to hold less at once; the result is the same.

    Raises
    ------
    ValueError
        For arguments that do not fit together, an empty loader, or a model that is not ready; the message names it.
    """

    def __init__(
        self,
        model: Any,
        train_loader: Any,
        vote_loader: Any,
        test_loader: Any | None = None,
        need_reset_optimizer: bool = True,
        minimise_criterion: bool = True,
        criterion: str = "loss",
        model_fit_kwargs: Mapping[str, Any] | None = None,
        model_evaluate_kwargs: Mapping[str, Any] | None = None,
        diff_priv_config: DiffPrivConfig | None = None,
        test_criterion: str | None = None,
        seed: int | None = None,
        privacy_folder: str | os.PathLike[str] | None = None,
        num_microbatches: int | None = None,
    ) -> None:
        super().__init__()
        self.model = ready(model)
        self.train_loader, self.vote_loader, self.test_loader = train_loader, vote_loader, test_loader
        self.need_reset_optimizer = need_reset_optimizer
        self.minimise_criterion = minimise_criterion
        self.criterion = criterion
        self.test_criterion = test_criterion or criterion
        self.fit_kwargs = checked_options("model_fit_kwargs", model.fit, model_fit_kwargs)
        self.evaluate_kwargs = checked_options("model_evaluate_kwargs", model.evaluate, model_evaluate_kwargs)
        self._train_arguments = as_arguments("train_loader", train_loader, self.fit_kwargs)
        self._vote_arguments = as_arguments("vote_loader", vote_loader, self.evaluate_kwargs)
        self._test_arguments = (
            None if test_loader is None else as_arguments("test_loader", test_loader, self.evaluate_kwargs)
        )
        self._examples = examples_of(train_loader, self.fit_kwargs)
        self._form = form_of(model)
        self._seed = seed_of_process() if seed is None else whole_number("seed", seed, at_least=0)
        self._proximal: ProximalTerm | None = None
        with scope_of(model):
            self._fresh_optimizer = fresh_state(model.optimizer, model.trainable_variables)
        with left_as_it_was(model, optimizer=False):
            self.vote_score = self._score("vote_loader", self._vote_arguments, self.criterion)
            self._batch_size = batch_size_of(train_loader, self.fit_kwargs)
            self._private = (
                None
                if diff_priv_config is None
                else _privately(
                    model,
                    train_loader,
                    diff_priv_config,
                    options=self.fit_kwargs,
                    num_microbatches=num_microbatches,
                    folder=privacy_folder,
                )
            )

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        """Train with these options from now on."""
        if options.proximal_mu and keras.backend.backend() not in ("tensorflow", "torch"):
            raise OptionRefusedError(
                f"proximal_mu: {options.proximal_mu:g}; Keras on {keras.backend.backend()} compiles the weights of the "
                "start into its training step, 0 is needed"
            )
        super().mli_set_training_options(options)

    def mli_propose_weights(self) -> Weights:
        """Train, return the weights, and put everything back as it was.

        Where the privacy budget does not last for it there is no training: the current weights are returned, with
        DP_BUDGET_EXCEEDED in their summary.
        """
        self._stop.clear()
        if self._private is not None and (refusal := self._private.spending.refusal()) is not None:
            return Weights(weights=self.mli_get_current_weights().weights, training_summary=refusal)
        own, finite = self._fingerprint()
        with left_as_it_was(self.model, optimizer=True, elsewhere=self._start_proximal()) as optimized:
            seed_everything(self.model, derive_seed(self._seed, self.options.round, own))
            if self.need_reset_optimizer:
                self._fresh_optimizer.put_back(but=learning_rates(self.model.optimizer), over=optimized)
            summary = self._train()
            named = dict(each_array(self.model))
            refuse_diverged(dict(zip(names_of(self.model), named.values(), strict=True)), finite=finite)
            if not self.need_reset_optimizer:
                self._proposed = (fingerprint(named), Held(self.model.optimizer.variables))
        return Weights(weights=[*named.values()], training_summary=summary)

    def mli_get_current_weights(self) -> Weights:
        """Return a copy of the weights."""
        return Weights(weights=[array for _, array in each_array(self.model)])

    def exporter(self) -> Exporter:
        """Give the model to be exported, with inputs that it votes on."""
        from collective_learner.export.keras import KerasExporter  # noqa: PLC0415 - only whoever exports needs it

        with left_as_it_was(self.model, optimizer=False, weights=False):  # a data set may draw as it gives a batch
            return KerasExporter(self.model, self._vote_arguments["x"], self._safetensors)

    def _safetensors(self) -> bytes:
        """Write the weights, named by their places in `get_weights`."""
        from collective_learner.wire.codec import encode  # noqa: PLC0415 - only whoever wants a file pays for it

        return encode(self.mli_get_current_weights()).to_bytes()

    def _fingerprint(self) -> tuple[bytes, frozenset[str]]:
        """Fingerprint the weights, and name those that are finite; one copy of one weight at a time."""
        names, finite = iter(names_of(self.model)), set()

        def arrays() -> Iterator[tuple[str, Array]]:
            for name, array in each_array(self.model):
                shown = next(names)
                if is_finite(array):
                    finite.add(shown)
                yield name, array

        return fingerprint(arrays()), frozenset(finite)

    def _start_proximal(self) -> Mapping[int, Any]:
        mu = self.options.proximal_mu
        if mu:
            if self._proximal is None:
                self._proximal = ProximalTerm(self.model)
            return self._proximal.start(mu)
        if self._proximal is not None:
            self._proximal.remove()
            self._proximal = None
        return {}

    def _train(self) -> TrainingSummary:
        if self._private is not None:
            with self._named("train_loader", self.train_loader, self.fit_kwargs):
                return self._private.train(go_on=self._go_on, count=self._count)
        given = self.fit_kwargs.get("callbacks")
        callbacks = [*given] if isinstance(given, Sequence) else [given] if given is not None else []
        own: list[keras.callbacks.Callback] = [Stopping(self._go_on)]
        if self._batch_size is not None:
            own.append(Counting(self._count, self._batch_size))
        options = {"verbose": 0, **self.fit_kwargs, "callbacks": [*callbacks, *own]}
        with self._named("train_loader", self.train_loader, self.fit_kwargs):
            history = self.model.fit(**self._train_arguments, **options).history
        self._go_on()
        last = {name: float(values[-1]) for name, values in history.items() if values and _is_number(values[-1])}
        return TrainingSummary(
            examples=self._examples, metrics={name: value for name, value in last.items() if math.isfinite(value)}
        )

    def _fingerprint_of(self, arrays: Mapping[str, Array]) -> bytes:
        # By their places, as `each_array` has it: paths differ between models that are alike.
        return fingerprint((str(index), array) for index, array in enumerate(arrays.values()))

    @contextmanager
    def _showing(self, arrays: Mapping[str, Array]) -> Iterator[None]:
        with left_as_it_was(self.model, optimizer=False):
            self._load(arrays)
            yield

    def _test_score(self) -> float:
        if self._test_arguments is None:
            return 0.0
        return self._score("test_loader", self._test_arguments, self.test_criterion)

    def _load(self, arrays: Mapping[str, Array]) -> None:
        load_arrays(self.model, arrays.values())

    def _go_on_with(self, optimizer: Held) -> None:
        optimizer.put_back()

    def _vote_score(self, arrays: Mapping[str, Array]) -> float:
        score = self._score("vote_loader", self._vote_arguments, self.criterion)
        return float("nan") if has_nan(arrays) else score

    def _score(self, name: str, arguments: Mapping[str, Any], criterion: str) -> float:
        loader = arguments["x"] if len(arguments) == 1 else (*arguments.values(),)
        with self._named(name, loader, self.evaluate_kwargs):
            found = self.model.evaluate(**arguments, **{"verbose": 0, **self.evaluate_kwargs}, return_dict=True)
        for which, each in (("criterion", self.criterion), ("test_criterion", self.test_criterion)):
            if each not in found:
                raise ValueError(f"{which}: {each!r}, the model is compiled with {', '.join(found)}")
        if math.isnan(found["loss"]):
            return float("nan")  # an accuracy would take outputs that are not numbers for class 0
        return float(found[criterion])

    @contextmanager
    def _named(self, name: str, loader: Any, options: Mapping[str, Any]) -> Iterator[None]:
        """Say whose numbers they were that did not go through the model, or what memory did not suffice for."""
        try:
            yield
        except errors_of_computations() as error:
            if not is_out_of_memory(error):
                if isinstance(error, RuntimeError):  # whoever raised it, a callback maybe, says it better
                    raise
                raise ValueError(f"{name}: the model fails on it: {telling_line(error)}") from error
            told = out_of_memory(error, batch_size=batch_size_of(loader, options), memory=memory_in_words())
        else:
            return
        raise told  # after the framework's error is gone, whose frames hold on to what is on the device


def _privately(model: Any, loader: Any, config: DiffPrivConfig, **more: Any) -> PrivateTraining:
    from collective_learner.privacy.keras_dp import PrivateTraining  # noqa: PLC0415 - only whoever needs it loads it

    return PrivateTraining(model, loader, config, **more)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
