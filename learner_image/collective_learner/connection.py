"""The first word with a learner: wait for its server, within bounds, and say what was tried.

A pod's server listens seconds after the pod has an address, on a cold node more, so a refused connection is no failure
until the attempts are used up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from collective_learner.wire import interface_pb2 as pb
from collective_learner.wire import methods

MAX_BACKOFF_S = 5.0

_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # GetCurrentModel answers with one message
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # else an old channel's backoff would be inherited
)


class LearnerCallError(RuntimeError):
    """A call to a learner failed; the message says whose, which and why.

    Parameters
    ----------
    learner
        The learner's name.
    method
        The RPC.
    code
        Its status; None when the learner answered and the answer was wrong.
    details
        What the learner said, or what was wrong.
    """

    def __init__(self, *, learner: str, method: str, code: grpc.StatusCode | None, details: str) -> None:
        self.learner, self.method, self.code, self.details = learner, method, code, details
        super().__init__(f"{learner}: {method}{f' ended with {code.name}' if code else ''}: {details}")


def call_error(learner: str, method: str, error: grpc.RpcError) -> LearnerCallError:
    """Put a failed RPC into words."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
    return LearnerCallError(learner=learner, method=method, code=code, details=details)


def wait_for_server(
    channel: grpc.Channel,
    *,
    learner: str,
    attempts: int,
    timeout_s: float,
    on_attempt: Callable[[int, str | None], None] = lambda number, failure: None,
) -> str:
    """Ask for the version until there is an answer.

    Parameters
    ----------
    channel
        To the learner.
    learner
        Its name, for errors.
    attempts
        How often to try, with growing pauses between.
    timeout_s
        Of each attempt, in seconds.
    on_attempt
        Told the number of each attempt before it (with None) and, if it fails, after it (with the reason).

    Returns
    -------
    str
        The version; empty from a learner that does not say.

    Raises
    ------
    LearnerCallError
        No attempt was answered, or the answer was an error that waiting does not cure.
    """
    query = channel.unary_unary(methods.path("QueryVersion"), Empty.SerializeToString, pb.ResponseVersion.FromString)
    for number in range(1, attempts + 1):
        on_attempt(number, None)
        try:
            answer: pb.ResponseVersion = query(Empty(), timeout=timeout_s)
        except grpc.RpcError as error:
            failure = call_error(learner, "QueryVersion", error)
            if failure.code is grpc.StatusCode.UNIMPLEMENTED:
                return ""
            on_attempt(number, failure.details)
            if failure.code not in _NOT_YET or number == attempts:
                raise failure from error
            time.sleep(min(0.25 * 2 ** (number - 1), MAX_BACKOFF_S))
        else:
            return answer.version
    raise ValueError(f"attempts: {attempts}, at least 1 is needed")


def supported_system(answer: pb.ResponseSupportedSystem) -> dict[str, Any]:
    """Put what a learner offers into plain dictionaries, as `collective probe` shows it.

    Returns
    -------
    dict
        ``data_loaders`` and ``model_architectures``, default parameters by name, and ``compatibilities``, lists of
        data loaders by model.

    Raises
    ------
    ValueError
        Default parameters are not JSON.
    """
    return {
        "compatibilities": {item.model_architecture: list(item.dataloaders) for item in answer.compatibilities},
        "data_loaders": {item.name: _defaults(item.default_parameters) for item in answer.data_loaders},
        "model_architectures": {item.name: _defaults(item.default_parameters) for item in answer.model_architectures},
    }


def _defaults(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except RecursionError as error:
        raise ValueError("default parameters are nested too deep") from error
