"""What stands at both ends of a call: what gRPC hands to whoever answers it, and how a message becomes bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]
    """Generic to type checkers alone: who imports it does so for them, too."""


def serialize(message: Message) -> bytes:
    """Write any message, for methods that are bound by hand."""
    return message.SerializeToString()
