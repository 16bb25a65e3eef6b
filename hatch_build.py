"""Generates the gRPC stubs from the one committed .proto whenever the package is built or installed for development.

Generated code is never committed: it would drift from its source, and every protobuf release would rewrite it.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO = "collective_learner/wire/interface.proto"


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]  # it serves whichever builder calls
    """Runs protoc over ``learner_image`` before files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write ``interface_pb2.py``, its types and ``interface_pb2_grpc.py`` beside the .proto."""
        from grpc_tools import protoc  # noqa: PLC0415 - present in the build environment only

        source = Path(self.root, "learner_image")
        well_known = resources.files("grpc_tools") / "_proto"
        status = protoc.main(
            [
                "protoc",
                f"-I{source}",
                f"-I{well_known}",
                f"--python_out={source}",
                f"--pyi_out={source}",
                f"--grpc_python_out={source}",
                PROTO,
            ]
        )
        if status:
            raise RuntimeError(f"protoc ended with status {status} on {PROTO}")
