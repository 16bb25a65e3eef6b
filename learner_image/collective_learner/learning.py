"""What a learner that is set up does with weights: all of it in the learner's thread, one call at a time (`turn`).

Nothing here knows of RPCs. What comes from the learner's own code is checked here, so that a method that returns
something else is that learner's error, said by the method's name, and no other's.

Memory: beside the learner's own weights there is one copy of others: those last tested or those last proposed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from collective_learner.factory import MliFactory, SetupRefusedError
from collective_learner.formats import WeightsFormat
from collective_learner.messages import summary_to_bytes
from collective_learner.metrics import LearnerMetrics
from collective_learner.mli import (
    ColearnModel,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    TrainingDivergedError,
    TrainingOptions,
    Weights,
)
from collective_learner.seeding import seed_everything
from collective_learner.template import NotFiniteError, Template, owned
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.codec import EncodedWeights
from collective_learner.wire.digest import digest_of, name_of

T = TypeVar("T")

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Candidate:
    """Weights to be tested or accepted, and the very bytes, to be checked against the name that they go by."""

    weights: Weights
    pieces: Sequence[memoryview]
    _digest: bytes | None = None

    def digest(self) -> bytes:
        """Hash the bytes, once; takes its time."""
        if self._digest is None:
            self._digest = digest_of(self.pieces)
        return self._digest


@dataclass(frozen=True, slots=True)
class Proposed:
    """Weights as they were proposed, and the name that they were asked for under; empty when nobody gave one."""

    name: bytes
    candidate: Candidate


class Learning:
    """One learner with its model and data, and the weights that it last tested, accepted and proposed.

    Parameters
    ----------
    mli
        The learner's own code.
    template
        What its weights look like.
    weights_format
        What they travel in.
    metrics
        Told of trainings and tests.
    """

    def __init__(
        self,
        mli: MachineLearningInterface,
        *,
        template: Template,
        weights_format: WeightsFormat,
        metrics: LearnerMetrics,
    ) -> None:
        self.mli = mli
        self.template = template
        self._format = weights_format
        self._metrics = metrics
        self.accepted: bytes | None = None
        """The digest of the weights that it holds; None before the first were accepted."""
        self.tested: Candidate | None = None
        """Weights as they were tested, for whoever accepts them by their digest."""
        self.proposed: Proposed | None = None
        """For whoever has them tested where they are."""

    def forget_others(self) -> None:
        """Give up the copy of weights that are not the learner's own: the next will need the memory."""
        self.tested = self.proposed = None

    def train(self, options: TrainingOptions) -> tuple[EncodedWeights, bytes | None]:
        """Train; the proposal, and the serialised TrainingSummary."""
        started = time.monotonic()
        self.mli.mli_set_training_options(options)
        with self._metrics.train_seconds.time(), self._metrics.training(self.mli) as training:
            weights = _checked(self.mli.mli_propose_weights(), Weights, "mli_propose_weights")
            summary = weights.training_summary
            training.ended(summary)
        _logger.info("trained in %.1f s", time.monotonic() - started)
        # Checked here, where it is one learner's failure, and not by every learner that would have to refuse it.
        try:
            encoded = self._format.encode(self.template.fit(weights))
            return encoded, summary_to_bytes(summary, trained_from=self.accepted or b"")
        except NotFiniteError as error:
            raise TrainingDivergedError(f"the training diverged: {error}") from error

    def test(self, candidate: Candidate) -> pb.ProposedWeights:
        """Vote, and keep the candidate."""
        with self._metrics.test_seconds.time():
            verdict = _checked(self.mli.mli_test_weights(candidate.weights), ProposedWeights, "mli_test_weights")
        answer = pb.ProposedWeights(
            vote_score=float(verdict.vote_score),
            test_score=float(verdict.test_score),
            vote=bool(verdict.vote),
            held=self.accepted or b"",
        )
        self.tested = candidate
        return answer

    def accept(self, candidate: Candidate) -> None:
        """Have the learner take the weights; one that fails at it holds nobody knows what."""
        digest = candidate.digest()
        self.accepted = self.proposed = None
        weights = candidate.weights
        self.mli.mli_accept_weights(weights if self.mli.accepts_views else owned(weights))
        self.accepted, self.tested = digest, None

    def current_weights(self) -> EncodedWeights:
        """Give the weights as they are; views of the living model, maybe."""
        return self._format.encode(_current(self.mli))

    def current_model(self) -> ColearnModel:
        """Give the model in a format that other programs load."""
        return _checked(self.mli.mli_get_current_model(), ColearnModel, "mli_get_current_model")

    def exported(self, name: str) -> bytes:
        """Write the model as a file.

        Parameters
        ----------
        name
            Of the format, see `Exporter.formats`.

        Raises
        ------
        ExportError
            The model does not go into the format; the message says why.
        """
        from collective_learner.export.exporter import ONNX, WEIGHTS, exporter_of  # noqa: PLC0415 - few are asked

        if not hasattr(self.mli, "exporter") and name == ONNX:
            model = self.current_model()
            if model.model_format is ModelFormat.ONNX and model.model:
                return model.model
        about = {WEIGHTS: name_of(self.accepted)} if self.accepted else {}
        return exporter_of(self.mli).file(name, about=about)


def set_up(
    request: pb.RequestMLSetup,
    *,
    factory: MliFactory,
    max_weights_bytes: int,
    weights_format: WeightsFormat,
    metrics: LearnerMetrics,
) -> Learning:
    """Load the data and build the model.

    Raises
    ------
    SetupRefusedError
        The names or parameters are wrong, or the model's weights are too large.
    """
    if request.HasField("seed"):
        seed_everything(request.seed)
    mli = factory.get_mli(
        model_name=request.model_arch_name,
        model_params=request.model_parameters,
        dataloader_name=request.dataset_loader_name,
        dataset_params=request.dataset_loader_parameters,
    )
    weights = _current(mli)
    weights_format.encode(weights)  # so that what cannot travel is refused now, not after a training
    template = Template(weights)
    if template.most_bytes > max_weights_bytes:
        raise SetupRefusedError(
            f"the weights of the model {request.model_arch_name!r} have {template.most_bytes} bytes, "
            f"this learner allows {max_weights_bytes} (--max-weights-bytes)"
        )
    return Learning(mli, template=template, weights_format=weights_format, metrics=metrics)


def _current(mli: MachineLearningInterface) -> Weights:
    return _checked(mli.mli_get_current_weights(), Weights, "mli_get_current_weights")


def _checked(answer: T, kind: type[T], method: str) -> T:
    if not isinstance(answer, kind):
        raise TypeError(f"{method} returned {type(answer).__name__}, {kind.__name__} is needed")
    return answer
