"""What gRPC hands to whoever answers a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]
    """Generic to type checkers alone: who imports it does so for them, too."""
