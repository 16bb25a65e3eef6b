"""Brings what a task has come to to the place that it names, within a bound.

The place is looked at when the task begins: a mistyped bucket or a forgotten password must not wait for the last round
to show. What cannot be brought there at the end stays where it is, on the coordinator's volume, and the task fails with
that: who asked for a place would look for the model there. Another try finds all rounds decided, and only brings it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collective_coordinator.child import ChildError, child
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.metrics import Metrics

LOG = logging.getLogger(__name__)

_CHECK_WITHIN_S = 45.0
_BEGUN_S = 60.0
"""For a program to start and to load a store's library."""
_SILENT_S = 120.0
_MOST_TRIES = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class _NotTakenError(Exception):
    """An attempt came to nothing; asking again does not help if `final`."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A place to bring files to.

    Parameters
    ----------
    url
        ``spec.result.location``.
    patience_s
        How long to go on trying while nothing is taken.
    metrics
        Counts attempts that came to nothing.
    """

    url: str
    patience_s: float
    metrics: Metrics

    async def check(self) -> None:
        """Look whether the place can be written to.

        Raises
        ------
        TaskFailedError
            It cannot, for a few tries or for good.
        """
        try:
            await self._insist([], patience_s=min(self.patience_s, _CHECK_WITHIN_S))
        except _NotTakenError as error:
            raise TaskFailedError(
                "UploadFailed",
                f"result.location: {self.url!r} cannot be written to: {error}; it must be the URL of a folder, or "
                "of a prefix in a bucket that is there, and the Secret of result.secretRef must hold what the store "
                "asks for",
            ) from error
        LOG.info("%s can be written to", self.url)

    async def bring(self, directory: Path, names: Sequence[str]) -> None:
        """Bring files there, in this order.

        Raises
        ------
        TaskFailedError
            Not all of them are there. They are still in the directory.
        """
        files = [{"path": str(directory / name), "name": name} for name in names]
        try:
            await self._insist(files, patience_s=self.patience_s)
        except _NotTakenError as error:
            raise TaskFailedError(
                "UploadFailed",
                "All rounds are decided, and the model is on the coordinator's volume; "
                f"result.location {self.url!r} did not take it: {error}",
            ) from error
        LOG.info("%s has %s", self.url, ", ".join(names))

    async def _insist(self, files: list[dict[str, str]], *, patience_s: float) -> None:
        clock = asyncio.get_running_loop().time
        pause, taken_at = _FIRST_PAUSE_S, clock()
        for number in range(1, _MOST_TRIES + 1):
            heard: list[float] = []
            left = patience_s - (clock() - taken_at)
            try:
                await self._attempt(files, heard, silent_s=max(0.1, min(_SILENT_S, left)))
            except _NotTakenError as error:
                self.metrics.upload_failed()
                # The time begins when the first courier does; one that only begins again is no progress.
                if len(heard) > (number > 1):
                    taken_at = heard[-1]
                over = clock() + pause - taken_at > patience_s
                if error.final or over or number == _MOST_TRIES:
                    raise
                LOG.warning("%s, try %d: %s", self.url, number, error)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _attempt(self, files: list[dict[str, str]], heard: list[float], *, silent_s: float) -> None:
        try:
            async with child("collective_coordinator.delivery.courier", {"url": self.url, "files": files}) as courier:
                answer = await courier.heard(within_s=_BEGUN_S)
                while "done" not in answer:
                    if "error" in answer:
                        raise _NotTakenError(str(answer["error"]), final=bool(answer.get("final")))
                    heard.append(asyncio.get_running_loop().time())
                    answer = await courier.heard(within_s=silent_s)
        except (ChildError, OSError) as error:
            raise _NotTakenError(str(error)) from error
