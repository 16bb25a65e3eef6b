"""How a call ends: whatever it raises becomes one status, with a message that a person can act on.

One place decides, so that a peer can rely on what a status means: INVALID_ARGUMENT and RESOURCE_EXHAUSTED were said
before the learner was called, INTERNAL is its own code's failure, with the traceback in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from collective_learner.export.errors import ExportError
from collective_learner.metrics import LearnerMetrics
from collective_learner.mli import (
    OptionRefusedError,
    TrainingDivergedError,
    TrainingStoppedError,
    WeightsRefusedError,
)
from collective_learner.passwords import hidden
from collective_learner.turn import LearnerFailedError
from collective_learner.wire.parts import TooLargeError, WireError

if TYPE_CHECKING:
    from collective_learner.calls import Context

_logger = logging.getLogger(__name__)

_MAX_DETAILS = 1500
"""Characters of an error's message: all trailers of a call together must stay under 8 KiB."""

_CODES: dict[type[Exception], grpc.StatusCode] = {
    OptionRefusedError: grpc.StatusCode.UNIMPLEMENTED,  # FAILED_PRECONDITION says that MLSetup is missing
    TrainingStoppedError: grpc.StatusCode.ABORTED,
    TrainingDivergedError: grpc.StatusCode.INTERNAL,
    WeightsRefusedError: grpc.StatusCode.INVALID_ARGUMENT,
    ExportError: grpc.StatusCode.FAILED_PRECONDITION,
}
"""What a learner says in words of its own; any other error of its code is INTERNAL and named."""


class RefusedError(Exception):
    """A call that is answered with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def no_model() -> RefusedError:
    """Refuse a call that needs a model, where there is none."""
    return RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "there is no model yet; call MLSetup first")


@contextlib.asynccontextmanager
async def answering(method: str, context: Context, metrics: LearnerMetrics) -> AsyncIterator[None]:
    """Turn what a call raises into its status, and count it."""
    code = grpc.StatusCode.OK
    try:
        yield
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
        raise
    except Exception as error:  # a learner's own code raises anything, and the caller is told in words
        code, message = _status_of(error)
        if code is grpc.StatusCode.INTERNAL and not isinstance(error, RefusedError):
            _logger.exception("%s failed", method)
        else:
            _logger.warning("%s refused with %s: %s", method, code.name, message)
        await context.abort(code, shortened(message))
    finally:
        metrics.rpcs.labels(method, code.name).inc()


def _status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, RefusedError):
        return error.code, str(error)
    if isinstance(error, TooLargeError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
    if isinstance(error, WireError | DecodeError):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    if isinstance(error, LearnerFailedError):
        for kind, code in _CODES.items():
            if isinstance(error.__cause__, kind):
                return code, str(error.__cause__)
        return grpc.StatusCode.INTERNAL, f"the learner's own code failed: {error}; the traceback is in its log"
    return grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"


def shortened(message: str) -> str:
    """Cut a message to what fits into the trailers of a call, and leave passwords out of it."""
    message = hidden(message)
    return message if len(message) <= _MAX_DETAILS else message[: _MAX_DETAILS - 3] + "..."
