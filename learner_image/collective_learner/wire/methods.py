"""The names of the RPCs, once, for servers and clients that carry parts as raw bytes instead of generated messages."""

from __future__ import annotations

SERVICE = "contract_learn.grpc.GRPCLearner"

INTERFACE_VERSION = "1.0.0"
"""What QueryVersion answers."""


def path(method: str) -> str:
    """Give the HTTP/2 path of a method, for example ``/contract_learn.grpc.GRPCLearner/TestWeights``."""
    return f"/{SERVICE}/{method}"
