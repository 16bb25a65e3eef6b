"""A remote learner that looks like a local one: the Machine Learning Interface over gRPC.

Every call has a deadline, and what comes back is checked as strictly as what a server receives: a learner can lie, too.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import grpc
from google.protobuf.empty_pb2 import Empty

from collective_learner.calls import serialize
from collective_learner.connection import (
    CHANNEL_OPTIONS,
    LearnerCallError,
    call_error,
    supported_system,
    wait_for_server,
)
from collective_learner.messages import summary_from_bytes, summary_to_bytes
from collective_learner.mli import (
    ColearnModel,
    MachineLearningInterface,
    ModelFormat,
    ProposedWeights,
    TrainingOptions,
    TrainingStoppedError,
    Weights,
)
from collective_learner.tls import TlsFiles
from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire import methods
from collective_learner.wire.assembly import Assembly
from collective_learner.wire.codec import decode, encode
from collective_learner.wire.digest import digest_of
from collective_learner.wire.parts import WireError

MAX_WEIGHTS_BYTES = 16 << 30


class GRPCLearnerClient(MachineLearningInterface):
    """Drives the learner behind a gRPC server.

    Parameters
    ----------
    name
        What it is called in errors.
    address
        ``host:port``.
    query_timeout_s
        Deadline of calls that a learner answers at once, in seconds.
    timeout_s
        Deadline of all others, in seconds.
    attempts
        How often `start` tries to reach the server.
    max_weights_bytes
        The most bytes that weights from there may have.
    tls
        Keys and certificates, read by `start`: the server's certificate must be for the host that ``address`` names.
        None speaks plain text.
    """

    accepts_views = True

    def __init__(
        self,
        name: str,
        address: str,
        *,
        query_timeout_s: float = 10.0,
        timeout_s: float = 3600.0,
        attempts: int = 8,
        max_weights_bytes: int = MAX_WEIGHTS_BYTES,
        tls: TlsFiles | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self._query_timeout_s = query_timeout_s
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._max_weights_bytes = max_weights_bytes
        self._tls = tls
        self._channel: grpc.Channel | None = None
        self._has_tested = False
        self._options = TrainingOptions()
        self._training: grpc.Call | None = None
        self._stop = threading.Event()

    def start(self, on_attempt: Callable[[int, str | None], None] = lambda number, failure: None) -> None:
        """Connect, and wait for the server to answer.

        Parameters
        ----------
        on_attempt
            Told the number of each attempt before it (with None) and, if it fails, after it (with the reason).

        Raises
        ------
        LearnerCallError
            It did not answer within the attempts.
        TlsError
            Keys or certificates cannot be used.
        """
        self.stop()
        if self._tls is None:
            self._channel = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(self.address, self._tls.read().for_client(), options=CHANNEL_OPTIONS)
        try:
            wait_for_server(
                self._channel,
                learner=self.name,
                attempts=self._attempts,
                timeout_s=self._query_timeout_s,
                on_attempt=on_attempt,
            )
        except LearnerCallError:
            self.stop()
            raise

    def stop(self) -> None:
        """Disconnect; may be called at any time."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._has_tested = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def version(self) -> str:
        """Return the version of the interface that the learner speaks."""
        answer: pb.ResponseVersion = self._unary("QueryVersion", Empty(), pb.ResponseVersion)
        return answer.version

    def probe(self) -> dict[str, Any]:
        """Return what the learner offers: ``compatibilities``, ``data_loaders`` and ``model_architectures``.

        A learner that is still importing its modules answers when it has.
        """
        answer = self._unary("QuerySupportedSystem", Empty(), pb.ResponseSupportedSystem, timeout_s=self._timeout_s)
        with self._checked("QuerySupportedSystem"):
            return supported_system(answer)

    def setup_ml(
        self,
        dataset_loader_name: str,
        dataset_loader_parameters: Mapping[str, Any] | str,
        model_arch_name: str,
        model_parameters: Mapping[str, Any] | str,
        *,
        seed: int | None = None,
    ) -> str:
        """Have the learner load its data and build its model.

        Parameters
        ----------
        dataset_loader_name, model_arch_name
            Two names that `probe` shows, and that go together.
        dataset_loader_parameters, model_parameters
            What differs from the defaults, as mappings or as JSON.
        seed
            For the random generators of the learner's process.

        Returns
        -------
        str
            What the learner says about it.

        Raises
        ------
        LearnerCallError
            It refuses or cannot.
        """
        request = pb.RequestMLSetup(
            dataset_loader_name=dataset_loader_name,
            dataset_loader_parameters=_json(dataset_loader_parameters),
            model_arch_name=model_arch_name,
            model_parameters=_json(model_parameters),
            seed=seed,
        )
        answer = self._unary("MLSetup", request, pb.ResponseMLSetup, timeout_s=self._timeout_s)
        if answer.status != pb.SUCCESS:
            raise LearnerCallError(
                learner=self.name, method="MLSetup", code=None, details=answer.description or "no reason given"
            )
        self._has_tested = False
        description: str = answer.description
        return description

    def status(self) -> str:
        """Return the learner's status: WORKING, NO_MODEL, INTERNAL_ERROR or UNKNOWN."""
        call = self._connected().stream_stream(
            methods.path("StatusStream"), pb.RequestStatus.SerializeToString, pb.ResponseStatus.FromString
        )
        with self._translated("StatusStream"):
            for answer in call(iter((pb.RequestStatus(),)), timeout=self._query_timeout_s):
                return str(pb.SystemStatus.Name(answer.status))
        raise LearnerCallError(learner=self.name, method="StatusStream", code=None, details="no status came")

    def mli_set_training_options(self, options: TrainingOptions) -> None:
        """Send these options with every proposal from now on; the learner refuses there what it cannot do."""
        self._options = options

    def mli_stop_training(self) -> None:
        """Cancel the call of `mli_propose_weights` that is under way in another thread."""
        self._stop.set()
        if (training := self._training) is not None:
            training.cancel()

    def mli_propose_weights(self) -> Weights:
        """Have the learner train, and return what it proposes.

        Raises
        ------
        LearnerCallError
            It refuses, fails, or takes too long.
        TrainingStoppedError
            `mli_stop_training` was called meanwhile.
        """
        self._stop.clear()
        request = pb.RequestProposeWeights(round=self._options.round, proximal_mu=self._options.proximal_mu)

        def on_call(call: grpc.Call | None) -> None:
            self._training = call
            if call is not None and self._stop.is_set():
                call.cancel()

        try:
            return self._download("ProposeWeights", request, on_call)
        except LearnerCallError as error:
            if not self._stop.is_set():
                raise
            raise TrainingStoppedError(f"{self.name} was told to stop") from error

    def mli_test_weights(self, weights: Weights) -> ProposedWeights:
        """Have the learner vote on weights."""
        answer = self._upload("TestWeights", weights, pb.ProposedWeights)
        self._has_tested = True
        return ProposedWeights(
            weights=weights, vote_score=answer.vote_score, test_score=answer.test_score, vote=answer.vote
        )

    def mli_accept_weights(self, weights: Weights) -> None:
        """Have the learner take weights; those that it tested last are not sent again."""
        if self._has_tested:
            try:
                request = pb.RequestAcceptWeights(digest=encode(weights).digest())
                self._unary("AcceptWeights", request, Empty, timeout_s=self._timeout_s)
            except LearnerCallError as error:
                if error.code not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                    raise
            else:
                return
        self._has_tested = False
        self._upload("SetWeights", weights, Empty)

    def mli_get_current_weights(self) -> Weights:
        """Return the learner's weights."""
        return self._download("GetCurrentWeights", Empty())

    def mli_get_current_model(self) -> ColearnModel:
        """Return the learner's model in a format that other programs load."""
        answer = self._unary("GetCurrentModel", Empty(), pb.ResponseCurrentModel, timeout_s=self._timeout_s)
        with self._checked("GetCurrentModel"):
            model_format = ModelFormat(answer.model_format)
        return ColearnModel(
            model_format=model_format,
            model_file=answer.model_file,
            model=answer.model or None,
            description=answer.description,
        )

    def _connected(self) -> grpc.Channel:
        if self._channel is None:
            raise RuntimeError(f"{self.name}: not connected; call start() first")
        return self._channel

    def _unary(self, method: str, request: Any, answer: type[Any], *, timeout_s: float | None = None) -> Any:
        call = self._connected().unary_unary(methods.path(method), serialize, answer.FromString)
        with self._translated(method):
            return call(request, timeout=self._query_timeout_s if timeout_s is None else timeout_s)

    def _upload(self, method: str, weights: Weights, answer: type[Any]) -> Any:
        encoded = encode(weights)  # here, where its errors are the caller's; inside the stream they would be gRPC's
        parts = encoded.parts(summary=summary_to_bytes(weights.training_summary))
        call: Any = self._connected().stream_unary(methods.path(method), None, answer.FromString)
        with self._translated(method):
            return call(parts, timeout=self._timeout_s)

    def _download(
        self, method: str, request: Any, on_call: Callable[[grpc.Call | None], None] = lambda call: None
    ) -> Weights:
        call: Any = self._connected().unary_stream(methods.path(method), serialize, None)
        assembly = Assembly(limit=self._max_weights_bytes)
        with self._translated(method), self._checked(method):
            answer = call(request, timeout=self._timeout_s)
            on_call(answer)
            try:
                for message in answer:
                    assembly.take(message)
            finally:
                on_call(None)
                answer.cancel()  # nothing happens when it is over
            buffer, claimed = assembly.finish()
            if claimed is not None and digest_of((buffer,)) != claimed:
                raise WireError(f"the weights are not those that their sender calls {claimed.hex()}")
            weights = decode(buffer)
            weights.training_summary = summary_from_bytes(assembly.summary)
            return weights

    @contextlib.contextmanager
    def _translated(self, method: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise call_error(self.name, method, error) from error

    @contextlib.contextmanager
    def _checked(self, method: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise LearnerCallError(learner=self.name, method=method, code=None, details=str(error)) from error


def _json(parameters: Mapping[str, Any] | str) -> str:
    return parameters if isinstance(parameters, str) else json.dumps(dict(parameters), allow_nan=False)
