"""The model in other formats, at the end: a learner makes the file, since the frameworks are there, and checks it.

A model that does not go into a format is no failure of the task: the weights are there, and the result says why the
file is not. So nothing here raises, and all of it together takes no longer than a round may.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from collective_coordinator.checkpoint import CheckpointStore
from collective_coordinator.durable import sync_directory
from collective_coordinator.errors import LearnerError
from collective_coordinator.fanout import Relay
from collective_coordinator.history import OPAQUE, SAFETENSORS, is_safetensors
from collective_coordinator.member import Member
from collective_coordinator.spool import Spool, StoredWeights

T = TypeVar("T")

LOG = logging.getLogger(__name__)

FORMATS = {"safetensors": SAFETENSORS, "onnx": "model.onnx"}
"""The formats that a task may ask for, and their files."""

MOST_BYTES = 2 << 30
"""No ONNX file is larger: protobuf ends there."""
_SLACK_BYTES = 64 << 20
"""Of a file beyond four times the weights: what a graph takes, and programs that are embedded in it."""
_MOST_ASKED = 3
_MOST_MESSAGE = 300


@dataclass(frozen=True, kw_only=True)
class Export:
    """One format: its file, or why there is none."""

    name: str
    file: str | None = None
    message: str = ""

    def document(self) -> dict[str, Any]:
        """Write it as a result has it."""
        return {"name": self.name, **({"file": self.file} if self.file else {"message": self.message})}


def weights_export(weights: StoredWeights) -> Export:
    """Tell of the weights' own file; blocks for a look at it."""
    if is_safetensors(weights):
        return Export(name="safetensors", file=SAFETENSORS)
    return Export(name="safetensors", message=f"the learners have a format of their own, {OPAQUE} holds it")


class Exporting:
    """Asks learners for the files.

    Parameters
    ----------
    directory
        Where the files go.
    store
        Gives room for what arrives.
    members
        Tells who there is; those that are ready hold the weights.
    within_s
        The most seconds that all of it may take.
    writer, readers
        Threads for the disk.
    """

    def __init__(
        self,
        *,
        directory: Path,
        store: CheckpointStore,
        members: Callable[[], Sequence[Member]],
        within_s: float,
        writer: Executor,
        readers: Executor,
    ) -> None:
        self._directory = directory
        self._store = store
        self._members = members
        self._within_s = within_s
        self._writer = writer
        self._readers = readers

    async def run(self, formats: Sequence[str], weights: StoredWeights) -> list[Export]:
        """Make the files of a model, in every format but that of the weights; what lay there before is gone."""
        ends = asyncio.get_running_loop().time() + self._within_s
        return [await self._export(name, weights, ends) for name in formats if name != "safetensors"]

    async def _export(self, name: str, weights: StoredWeights, ends: float) -> Export:
        path = self._directory / FORMATS[name]
        why = "no learner was there to make it"
        try:
            await self._write(lambda: path.unlink(missing_ok=True))
            async with asyncio.timeout_at(ends):
                for member in [member for member in self._members() if member.ready][:_MOST_ASKED]:
                    try:
                        await self._fetched(member, name, weights, path)
                    except LearnerError as error:
                        why = f"{member.name}: {_reason(error)}"
                        LOG.warning("no %s: %s", name, why)
                        continue
                    LOG.info("%s: %s, made by %s", name, path, member.name)
                    return Export(name=name, file=path.name)
        except TimeoutError:
            why = f"it was not there within {self._within_s:g} s"
            LOG.warning("no %s: %s", name, why)
        except OSError as error:
            why = f"the file cannot be written: {error.strerror or error}"
            LOG.error("no %s: %s", name, why)
        return Export(name=name, message=why[:_MOST_MESSAGE])

    async def _fetched(self, member: Member, name: str, weights: StoredWeights, path: Path) -> None:
        limit = min(MOST_BYTES, 4 * weights.size + _SLACK_BYTES)
        async with self._spool(name) as spool:
            relay = Relay(spool, limit=limit, writer=self._writer, readers=self._readers)
            async with contextlib.aclosing(member.peer.export(name, digest=weights.digest)) as parts:
                await relay.pump(parts)
                await relay.stored()
            await self._write(lambda: _keep(spool, path))

    @contextlib.asynccontextmanager
    async def _spool(self, name: str) -> AsyncIterator[Spool]:
        spool = await self._write(lambda: self._store.spool(f"export-{name}"))
        try:
            yield spool
        finally:
            # After the writes that are still under way; and not awaited, since this may be a cancellation.
            self._writer.submit(spool.discard)

    async def _write(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def _keep(spool: Spool, path: Path) -> None:
    spool.sync()
    spool.path.replace(path)
    path.chmod(0o644)
    sync_directory(path.parent)


def _reason(error: LearnerError) -> str:
    if error.code is grpc.StatusCode.UNIMPLEMENTED:
        return "its server does not know ExportModel"
    return str(error)
