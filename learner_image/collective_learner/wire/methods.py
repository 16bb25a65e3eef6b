"""The names on the wire, once: of the RPCs, for whoever carries parts as raw bytes, and of the formats of weights."""

from __future__ import annotations

SERVICE = "contract_learn.grpc.GRPCLearner"

INTERFACE_VERSION = "1.0.0"
"""What QueryVersion answers."""

SAFETENSORS, NUMPY_PICKLE = "safetensors", "numpy-pickle"
WEIGHTS_FORMATS = (SAFETENSORS, NUMPY_PICKLE)
"""What weights may travel in; `formats` knows how."""


def path(method: str) -> str:
    """Give the HTTP/2 path of a method, for example ``/contract_learn.grpc.GRPCLearner/TestWeights``."""
    return f"/{SERVICE}/{method}"
