"""The RPCs of the Machine Learning Interface, answered by one learner.

All of it runs on one event loop, so that a thousand idle callers cost a thousand small tasks and no threads; the
learner's own code runs in the learner's thread (`turn`), one call at a time. Whatever can be refused is refused before
the learner is called, so a refused call leaves it as it was.

Memory: the learner's other copy of weights (`learning`) is given up before the next is allocated.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from google.protobuf.empty_pb2 import Empty

from collective_learner.answers import RefusedError, no_model, shortened
from collective_learner.factory import MliFactory, SetupRefusedError
from collective_learner.formats import SAFETENSORS, WeightsFormat
from collective_learner.learning import Candidate, Learning, Proposed, set_up
from collective_learner.metrics import LearnerMetrics
from collective_learner.mli import TrainingOptions
from collective_learner.passwords import hidden
from collective_learner.transfer import receive, send, send_parts
from collective_learner.turn import LearnerFailedError, Turn
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire.digest import ALGORITHM, DIGEST_BYTES
from collective_learner.wire.parts import WireError, encode_parts

if TYPE_CHECKING:
    from collective_learner.calls import Context

_logger = logging.getLogger(__name__)

_MAX_WAITING = 64
"""Calls that may wait for their turn; each holds no more than its stream's flow-control window."""
_MAX_NAME_BYTES = 64


class LearnerService:
    """Answers for one learner, on one event loop.

    Parameters
    ----------
    factory
        Makes the learner.
    metrics
        Told of every call.
    max_weights_bytes
        The most bytes that weights may have, however large the model is.
    stall_s
        Seconds after which a stream whose peer neither sends nor reads is given up.
    weights_format
        What weights travel in, both ways.
    """

    def __init__(
        self,
        *,
        factory: MliFactory,
        metrics: LearnerMetrics,
        max_weights_bytes: int,
        stall_s: float,
        weights_format: WeightsFormat = SAFETENSORS,
    ) -> None:
        self._factory = factory
        self.metrics = metrics
        """Of this learner."""
        self._max_weights_bytes = max_weights_bytes
        self._stall_s = stall_s
        self._format = weights_format
        self._turn = Turn()
        self._learning: Learning | None = None
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether the learner's own code is running."""
        return self._turn.busy

    def stop_training(self) -> None:
        """Have the training end that is going on, and none begin, when the server stops."""
        self._stopping = True
        self._turn.stop()

    async def query_supported_system(self, request: Empty, context: Context) -> pb.ResponseSupportedSystem:
        """Say which models and data loaders are offered."""
        answer = pb.ResponseSupportedSystem()
        for name, defaults in sorted(self._factory.get_dataloaders().items()):
            answer.data_loaders.add(name=name, default_parameters=json.dumps(defaults))
        for name, defaults in sorted(self._factory.get_models().items()):
            answer.model_architectures.add(name=name, default_parameters=json.dumps(defaults))
        for name, loaders in sorted(self._factory.get_compatibilities().items()):
            answer.compatibilities.add(model_architecture=name, dataloaders=sorted(loaders))
        return answer

    async def ml_setup(self, request: pb.RequestMLSetup, context: Context) -> pb.ResponseMLSetup:
        """Load the data and build the model; the model before it goes only when this succeeded.

        Whatever cannot be set up is answered with the status ERROR and a description, and the RPC itself succeeds:
        colearn's clients look there and nowhere else, and a second way to say the same would need to be handled twice.
        """
        async with self._taken():
            try:
                learning = await self._turn.call(
                    lambda: set_up(
                        request,
                        factory=self._factory,
                        max_weights_bytes=self._max_weights_bytes,
                        weights_format=self._format,
                        metrics=self.metrics,
                    )
                )
            except LearnerFailedError as error:
                cause = error.__cause__
                if isinstance(cause, SetupRefusedError):
                    _logger.warning("MLSetup refused: %s", cause)
                    return pb.ResponseMLSetup(status=pb.ERROR, description=hidden(str(cause)))
                _logger.error("MLSetup failed", exc_info=cause)
                return pb.ResponseMLSetup(status=pb.ERROR, description=shortened(str(error)))
            # Not reached when the caller has gone meanwhile: then nothing has changed.
            self._learning = learning
        what = f"{len(learning.template)} tensors, {learning.template.most_bytes} bytes"
        _logger.info("set up %s on %s: %s", request.model_arch_name, request.dataset_loader_name, what)
        return pb.ResponseMLSetup(status=pb.SUCCESS, description=what)

    async def propose_weights(self, request: pb.RequestProposeWeights, context: Context) -> None:
        """Train, and stream the new weights; a caller that goes away meanwhile ends the training."""
        try:
            options = TrainingOptions(round=request.round, proximal_mu=request.proximal_mu)
        except ValueError as error:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if len(request.proposal) > _MAX_NAME_BYTES:
            raise RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"proposal: {len(request.proposal)} bytes, at most {_MAX_NAME_BYTES} are allowed",
            )
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            self._refuse_when_stopping()
            learning.forget_others()  # a round that is over needs no accept
            try:
                encoded, summary = await self._turn.call(
                    lambda: learning.train(options), ask_to_stop=learning.mli.mli_stop_training
                )
            except LearnerFailedError:
                self._refuse_when_stopping()
                raise
            self._refuse_when_stopping()  # what a training gives that was told to stop is not what was asked for
            learning.proposed = Proposed(request.proposal, Candidate(encoded.weights, encoded.pieces))
        # The turn is over: a proposal is the caller's, and the learner may have to test it while it is still going out.
        await send(context, encoded, summary=summary, stall_s=self._stall_s)

    async def test_weights(self, context: Context) -> pb.ProposedWeights:
        """Vote on weights that are streamed here, and keep them for `accept_weights`."""
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            received = await self._receive(context, learning)
            return await self._turn.call(lambda: learning.test(received))

    async def test_proposal(self, request: pb.RequestTestProposal, context: Context) -> pb.ProposedWeights:
        """Vote on the weights last proposed, as `test_weights` does."""
        if not request.proposal:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "proposal: no name; ProposeWeights is given one, too")
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            proposed = learning.proposed
            if proposed is None or proposed.name != request.proposal:
                raise RefusedError(
                    grpc.StatusCode.NOT_FOUND,
                    f"the proposal {request.proposal.hex()} was not the last made here; send it with TestWeights",
                )
            learning.forget_others()
            return await self._turn.call(lambda: learning.test(proposed.candidate))

    async def set_weights(self, context: Context) -> Empty:
        """Take weights that are streamed here."""
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            received = await self._receive(context, learning)
            await self._turn.call(lambda: learning.accept(received))
            return Empty()

    async def accept_weights(self, request: pb.RequestAcceptWeights, context: Context) -> Empty:
        """Take the weights last tested; once more is fine, since an answer may have been lost."""
        _check_digest(request.digest)
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            if request.digest == learning.accepted:
                return Empty()
            tested = learning.tested
            if tested is None or await self._turn.call(tested.digest) != request.digest:
                raise RefusedError(
                    grpc.StatusCode.NOT_FOUND,
                    f"the weights {request.digest.hex()} were not the last tested here; send them with SetWeights",
                )
            await self._turn.call(lambda: learning.accept(tested))
            return Empty()

    async def get_current_weights(self, request: Empty, context: Context) -> None:
        """Stream the weights as they are."""
        self._set_up()
        async with self._taken():  # until the last part has gone: they may be views of the living model
            learning = self._set_up()
            encoded = await self._turn.call(learning.current_weights)
            await send(context, encoded, stall_s=self._stall_s)

    async def get_current_model(self, request: Empty, context: Context) -> pb.ResponseCurrentModel:
        """Give the model in a format that other programs load."""
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            exported = await self._turn.call(learning.current_model)
            return pb.ResponseCurrentModel(
                model_format=int(exported.model_format),
                model_file=exported.model_file,
                model=exported.model or b"",
                description=exported.description,
            )

    async def export_model(self, request: pb.RequestExportModel, context: Context) -> None:
        """Stream the model as a file of another format; of the weights asked for, and of no others."""
        self._set_up()
        async with self._taken():
            learning = self._set_up()
            if request.digest != (learning.accepted or b""):
                raise RefusedError(
                    grpc.StatusCode.NOT_FOUND, f"the weights {request.digest.hex() or 'of the start'} are not held here"
                )
            file = await self._turn.call(lambda: learning.exported(request.format))
        await send_parts(context, encode_parts(file), stall_s=self._stall_s)

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "the learner is stopping, and its training with it")

    def _set_up(self) -> Learning:
        if self._learning is None:
            raise no_model()
        return self._learning

    @contextlib.asynccontextmanager
    async def _taken(self) -> AsyncIterator[None]:
        if self._turn.waiting >= _MAX_WAITING:
            raise RefusedError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_WAITING} calls wait for this learner already"
            )
        async with self._turn.taken():
            yield

    async def _receive(self, context: Context, learning: Learning) -> Candidate:
        """Receive weights that fit the model, and are what their sender calls them, if it does."""
        learning.forget_others()
        template = learning.template
        limit = min(self._max_weights_bytes, self._format.limit(template))
        whole, claimed = await receive(context, limit=limit, stall_s=self._stall_s)
        try:
            weights = await self._turn.call(lambda: template.fit(self._format.decode(whole, template)))
        except LearnerFailedError as error:
            if isinstance(error.__cause__, WireError):
                raise error.__cause__ from None
            raise
        received = Candidate(weights, (whole,))
        if claimed is not None and await self._turn.call(received.digest) != claimed:
            raise WireError(f"the weights are not those that their sender calls {claimed.hex()}")
        return received


def _check_digest(digest: bytes) -> None:
    if len(digest) != DIGEST_BYTES:
        raise RefusedError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"digest: {len(digest)} bytes, {DIGEST_BYTES} of {ALGORITHM} are needed",
        )
