"""What is done once the rounds are over: other formats, the card, and the way to where the result was asked for.

Everything here can be done again: a coordinator that was killed in between finds all rounds decided and begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from collective_coordinator.board import Board
from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.config import Config
from collective_coordinator.delivery.card import CARD, model_card
from collective_coordinator.delivery.delivery import Delivery
from collective_coordinator.delivery.exported import keep_exports, kept_exports
from collective_coordinator.delivery.facts import file_facts
from collective_coordinator.durable import write_durably
from collective_coordinator.errors import storage_failure
from collective_coordinator.exports import FORMATS, Export, Exporting, weights_export
from collective_coordinator.history import BEST, OPAQUE, ROUNDS, SAFETENSORS

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Finishes a task.

    Parameters
    ----------
    directory
        Where its files are.
    exporting
        Makes other formats.
    delivery
        Where to bring the files; None: they stay where they are.
    dismiss
        Called when the learners have done all that they can do.
    board
        Shows what goes on.
    readers
        Threads for the disk.
    """

    directory: Path
    exporting: Exporting
    delivery: Delivery | None
    dismiss: Callable[[], Awaitable[None]]
    board: Board
    readers: Executor

    async def run(self, config: Config, snapshot: Snapshot, ended: tuple[str, str]) -> None:
        """Do it all.

        Raises
        ------
        TaskFailedError
            The volume does not take the card, or the result cannot be brought to where it was asked for.
        """
        if config.formats != ("safetensors",):
            self.board.exporting()
            self.board.exports = await self._exported(config, snapshot)
        names = await self._described(config, snapshot, ended)
        if self.delivery is not None:
            await self.dismiss()
            self.board.uploading(self.delivery.url)
            await self.delivery.bring(self.directory, names)
            self.board.location = self.delivery.url

    async def _exported(self, config: Config, snapshot: Snapshot) -> Sequence[Export]:
        about = (self.directory, snapshot.weights, config.formats)
        kept = await self._in_thread(partial(kept_exports, *about), "other formats cannot be read")
        if kept is not None:
            return kept
        made = await self.exporting.run(config.formats, snapshot.weights)
        await self._in_thread(partial(keep_exports, *about, made), "what was exported cannot be noted")
        return made

    async def _described(self, config: Config, snapshot: Snapshot, ended: tuple[str, str]) -> list[str]:
        def work() -> list[str]:
            names = result_files(snapshot, self.board.exports)
            card = model_card(
                config,
                snapshot,
                ended=ended,
                files=file_facts(self.directory, names),
                exports=[weights_export(snapshot.weights), *self.board.exports],
                written=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            )
            write_durably(self.directory / CARD, card.encode())
            # The card comes last wherever files are brought to: it says what must be there.
            return [*names, CARD]

        return await self._in_thread(work, "the model card cannot be written")

    async def _in_thread(self, work: Callable[[], T], fault: str) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self.readers, work)
        except OSError as error:
            raise storage_failure(fault, error) from error


def result_files(snapshot: Snapshot, exports: Sequence[Export]) -> list[str]:
    """Name the files of a result."""
    of_weights = {
        "": weights_export(snapshot.weights).file or OPAQUE,
        BEST: weights_export(snapshot.best.weights).file or OPAQUE,
    }
    exported = [FORMATS[export.name] for export in exports if export.file is not None and export.file != SAFETENSORS]
    # A task that ended before its first round has no line to show.
    history = [ROUNDS] if snapshot.round else []
    return [*history, *(f"{prefix}{name}" for prefix, name in of_weights.items()), *exported]
